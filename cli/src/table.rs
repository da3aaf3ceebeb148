//! Tables: aligned columns, coloured and fitted on a terminal, plain and whole in a pipe.

use std::io::{self, Write};

use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Color, ContentArrangement, Table};

use crate::limits::{CELL_CHARS_MAX, TABLE_COLUMNS_MIN};
use crate::term::{Look, Term};
use crate::text::one_line;

/// Blanks between two columns.
const GAP: usize = 2;

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
    let width = if term.stdout { Table::new().width() } else { None };
    let text = render(term, width, header, rows);
    writeln!(io::stdout(), "{text}")
}

/// With the terminal's width, if it is known.
fn render(term: Term, width: Option<u16>, header: &[&str], rows: Vec<Vec<Cell>>) -> String {
    if let Some(width) = width.map(usize::from)
        && width < TABLE_COLUMNS_MIN
        && natural_width(header, &rows) > width
    {
        return blocks(term, header, &rows);
    }
    let mut table = Table::new();
    table.load_style(NOTHING);
    let arrangement = if term.stdout { ContentArrangement::Dynamic } else { ContentArrangement::Disabled };
    table.set_content_arrangement(arrangement);
    if term.colours() {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    if let Some(width) = width {
        table.set_width(width);
    }
    let heading = |name: &&str| comfy_table::Cell::new(name).add_attribute(Attribute::Bold);
    table.set_header(header.iter().map(heading).collect::<Vec<_>>());
    let most = if term.stdout { CELL_CHARS_MAX } else { usize::MAX };
    for row in rows {
        table.add_row(row.into_iter().map(|cell| styled(&cell, most)).collect::<Vec<_>>());
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP as u16));
    }
    table.trim_fmt()
}

/// What it takes to show everything in its line.
fn natural_width(header: &[&str], rows: &[Vec<Cell>]) -> usize {
    let chars = |text: &str| text.chars().count().min(CELL_CHARS_MAX);
    let column = |(at, name): (usize, &&str)| {
        let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| chars(&cell.text));
        cells.chain([chars(name)]).max().unwrap_or_default() + GAP
    };
    header.iter().enumerate().map(column).sum::<usize>().saturating_sub(GAP)
}

/// Each row as lines of a name and a text, with an empty line between rows.
fn blocks(term: Term, header: &[&str], rows: &[Vec<Cell>]) -> String {
    let names = header.iter().map(|name| name.len()).max().unwrap_or_default() + GAP;
    let line = |(name, cell): (&&str, &Cell)| {
        let name = term.paint(Look::Bold, &format!("{name:<names$}"));
        format!("{name}{}", term.paint(cell.look, &one_line(&cell.text, usize::MAX)))
    };
    let block = |row: &Vec<Cell>| header.iter().zip(row).map(line).collect::<Vec<_>>().join("\n");
    rows.iter().map(block).collect::<Vec<_>>().join("\n\n")
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
        let text = render(term, None, &["HOST", "STATUS"], rows);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("HOST ") && lines[0].ends_with("STATUS"), "{text}");
        assert!(lines[1].starts_with("web1 ") && lines[1].ends_with("online"), "{text}");
        assert!(lines[2].ends_with("\\x1b[31mred"), "{text}");
        assert_eq!(lines[3], long);
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn a_narrow_terminal_gets_lines_below_each_other() {
        let term = Term { stdout: true, stderr: true, colour: false };
        let at = |width: u16| {
            let rows = vec![
                vec![plain("job_1"), plain("https://git.example.com/org/app.git")],
                vec![plain("job_2"), plain("x\x1b[2J")],
            ];
            render(term, Some(width), &["JOB", "REPOSITORY"], rows)
        };
        let below = "JOB         job_1\nREPOSITORY  https://git.example.com/org/app.git\n\nJOB         job_2\nREPOSITORY  x\\x1b[2J";
        assert_eq!(at(40), below);
        assert!(at(45).starts_with("JOB    REPOSITORY"), "there is room: {}", at(45));
        assert!(at(80).lines().nth(1).unwrap().ends_with("app.git"), "{}", at(80));
    }
}
