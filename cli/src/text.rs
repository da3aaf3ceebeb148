//! Text from elsewhere, made safe for a terminal, and text for a shell.

use std::fmt::Write as _;

/// Characters that change how a terminal shows the text around them, without being seen themselves.
fn is_treacherous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn write_char(out: &mut String, c: char) {
    match c {
        '\n' | '\t' => out.push(c),
        c if is_treacherous(c) && u32::from(c) < 0x100 => push(out, format_args!("\\x{:02x}", u32::from(c))),
        c if is_treacherous(c) => push(out, format_args!("\\u{{{:x}}}", u32::from(c))),
        c => out.push(c),
    }
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing into a String can't fail.
    out.write_fmt(text).ok();
}

/// Any bytes as text in which nothing is left that a terminal would obey: `\x1b` stands for an escape, `\xff` for a
/// byte that is no UTF-8. Line ends (also `\r\n`) and tabs stay.
#[derive(Debug, Default)]
pub(crate) struct Visible {
    /// The beginning of a character or of `\r\n` whose end has not come yet.
    tail: Vec<u8>,
}

impl Visible {
    /// Takes more bytes and gives what can be shown of them by now.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.tail);
        all.extend_from_slice(bytes);
        let mut out = String::with_capacity(all.len());
        let mut rest = all.as_slice();
        while !rest.is_empty() {
            let (good, bad, after) = match std::str::from_utf8(rest) {
                Ok(text) => (text, &[][..], &[][..]),
                Err(error) => {
                    let (good, others) = rest.split_at(error.valid_up_to());
                    let good = std::str::from_utf8(good).unwrap_or_default();
                    match error.error_len() {
                        None => {
                            self.tail = others.to_vec();
                            (good, &[][..], &[][..])
                        }
                        Some(length) => (good, &others[..length], &others[length..]),
                    }
                }
            };
            let open_return =
                bad.is_empty() && after.is_empty() && self.tail.is_empty() && good.ends_with('\r');
            let good = if open_return {
                self.tail.push(b'\r');
                &good[..good.len() - 1]
            } else {
                good
            };
            good.replace("\r\n", "\n").chars().for_each(|c| write_char(&mut out, c));
            bad.iter().for_each(|byte| push(&mut out, format_args!("\\x{byte:02x}")));
            rest = after;
        }
        out
    }

    /// What was held back, at the end.
    pub(crate) fn finish(&mut self) -> String {
        let mut out = String::new();
        std::mem::take(&mut self.tail).iter().for_each(|byte| push(&mut out, format_args!("\\x{byte:02x}")));
        out
    }
}

/// A whole text, made visible.
pub(crate) fn visible(bytes: &[u8]) -> String {
    let mut stream = Visible::default();
    let mut text = stream.push(bytes);
    text.push_str(&stream.finish());
    text
}

/// A text for one line: line ends and tabs made visible too, and cut after `most` characters.
pub(crate) fn one_line(text: &str, most: usize) -> String {
    let text = visible(text.trim_end().as_bytes()).replace('\n', "\\n").replace('\t', "\\t");
    if text.chars().count() <= most {
        return text;
    }
    let mut cut: String = text.chars().take(most.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// Arguments as one text that a POSIX shell splits into the same arguments again.
pub(crate) fn shell_join<S: AsRef<str>>(arguments: &[S]) -> String {
    arguments.iter().map(|a| shell_quote(a.as_ref())).collect::<Vec<_>>().join(" ")
}

fn shell_quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown() {
        for (bytes, expected) in [
            (&b"plain\ttext\n"[..], "plain\ttext\n"),
            (b"a\r\nb\r", "a\nb\\x0d"),
            (b"\x1b[2Jgone", "\\x1b[2Jgone"),
            (b"\xff\xfe ok", "\\xff\\xfe ok"),
            ("\u{9b}31m \u{202e}txt ä ✓".as_bytes(), "\\x9b31m \\u{202e}txt ä ✓"),
            (b"cut \xe2\x9c", "cut \\xe2\\x9c"),
        ] {
            assert_eq!(visible(bytes), expected);
        }
        assert_eq!(one_line("a\nb\n", 10), "a\\nb");
        assert_eq!(one_line("abcdef", 4), "abc…");
    }

    #[test]
    fn quoting() {
        assert_eq!(shell_join(&["ls", "-la", "my file"]), "ls -la 'my file'");
        assert_eq!(shell_join(&["echo", "it's", "", "$HOME"]), r"echo 'it'\''s' '' '$HOME'");
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_the_same_harmless_text(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|i| i.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let mut stream = Visible::default();
            let (mut text, mut at) = (String::new(), 0);
            for cut in cuts.into_iter().chain([bytes.len()]) {
                text.push_str(&stream.push(&bytes[at..cut]));
                at = cut;
            }
            text.push_str(&stream.finish());
            prop_assert_eq!(&text, &visible(&bytes));
            prop_assert!(text.chars().all(|c| c == '\n' || c == '\t' || !is_treacherous(c)));
        }

        #[test]
        fn a_shell_reads_what_was_quoted(arguments in prop::collection::vec("[^\0]{0,20}", 1..4)) {
            let script = format!("printf '%s\\0' {}", shell_join(&arguments));
            let out = std::process::Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
            let expected: String = arguments.iter().map(|a| format!("{a}\0")).collect();
            prop_assert_eq!(String::from_utf8(out.stdout).unwrap(), expected);
        }
    }
}
