//! Tables: aligned columns, coloured and fitted on a terminal, plain and whole in a pipe.

use std::io::{self, Write};

use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Color, ContentArrangement, Table};

use crate::limits::CELL_CHARS_MAX;
use crate::term::{Look, Term};
use crate::text::one_line;

/// One cell.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    look: Look,
}

/// A cell as it is.
pub(crate) fn plain(text: impl Into<String>) -> Cell {
    looking(Look::Plain, text)
}

/// A cell that looks like something.
pub(crate) fn looking(look: Look, text: impl Into<String>) -> Cell {
    Cell { text: text.into(), look }
}

/// Writes a table to standard output.
///
/// # Errors
/// When that can't be written to.
pub(crate) fn print(term: Term, header: &[&str], rows: Vec<Vec<Cell>>) -> io::Result<()> {
    let text = render(term, header, rows);
    writeln!(io::stdout(), "{text}")
}

fn render(term: Term, header: &[&str], rows: Vec<Vec<Cell>>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    let arrangement = if term.stdout { ContentArrangement::Dynamic } else { ContentArrangement::Disabled };
    table.set_content_arrangement(arrangement);
    if term.colours() {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    let heading = |name: &&str| comfy_table::Cell::new(name).add_attribute(Attribute::Bold);
    table.set_header(header.iter().map(heading).collect::<Vec<_>>());
    let most = if term.stdout { CELL_CHARS_MAX } else { usize::MAX };
    for row in rows {
        table.add_row(row.into_iter().map(|cell| styled(&cell, most)).collect::<Vec<_>>());
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

fn styled(cell: &Cell, most: usize) -> comfy_table::Cell {
    let text = comfy_table::Cell::new(one_line(&cell.text, most));
    match cell.look {
        Look::Plain => text,
        Look::Good => text.fg(Color::Green),
        Look::Warn => text.fg(Color::Yellow),
        Look::Bad => text.fg(Color::Red),
        Look::Dim => text.add_attribute(Attribute::Dim),
        Look::Bold => text.add_attribute(Attribute::Bold),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_gets_plain_aligned_text() {
        let term = Term { stdout: false, ..Term::detect() };
        let long = "x".repeat(200);
        let rows = vec![
            vec![plain("web1"), looking(Look::Good, "online")],
            vec![plain("db"), plain("\x1b[31mred\n")],
            vec![plain(long.clone()), plain("")],
        ];
        let text = render(term, &["HOST", "STATUS"], rows);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("HOST ") && lines[0].ends_with("STATUS"), "{text}");
        assert!(lines[1].starts_with("web1 ") && lines[1].ends_with("online"), "{text}");
        assert!(lines[2].ends_with("\\x1b[31mred"), "{text}");
        assert_eq!(lines[3], long);
        assert!(!text.contains('\u{1b}'));
    }
}
