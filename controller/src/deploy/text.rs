//! Lines of a log, made of bytes that anybody may have written: printable, of bounded length, without secrets.

use crate::limits::{JOB_LINE_BYTES_MAX, JOB_REASON_CHARS_MAX};

/// Cuts a stream of bytes into lines.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    buffer: Vec<u8>,
}

impl Splitter {
    /// The lines that are whole now. What is longer than a line may be is cut off.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in bytes {
            if *byte == b'\n' {
                lines.push(self.line());
            } else if self.buffer.len() <= JOB_LINE_BYTES_MAX {
                self.buffer.push(*byte);
            }
        }
        lines
    }

    /// What is left at the stream's end.
    pub(super) fn rest(&mut self) -> Option<String> {
        (!self.buffer.is_empty()).then(|| self.line())
    }

    fn line(&mut self) -> String {
        let bytes = std::mem::take(&mut self.buffer);
        let kept = &bytes[..bytes.len().min(JOB_LINE_BYTES_MAX)];
        let mut line = printable(&String::from_utf8_lossy(kept.strip_suffix(b"\r").unwrap_or(kept)));
        // What is not printable takes more room when it is.
        let end = (0..=JOB_LINE_BYTES_MAX.min(line.len())).rev().find(|at| line.is_char_boundary(*at));
        let end = end.unwrap_or(0);
        if bytes.len() > JOB_LINE_BYTES_MAX || end < line.len() {
            line.truncate(end);
            line.push('…');
        }
        line
    }
}

/// A text in which nothing moves a cursor, rings a bell or turns the direction of reading.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => out.push(c),
            '\0'..='\u{1f}' | '\u{7f}' => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            '\u{80}'..='\u{9f}'
            | '\u{200e}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' => out.push(char::REPLACEMENT_CHARACTER),
            _ => out.push(c),
        }
    }
    out
}

/// Without these secrets, however Ansible wrote them: as they are, or in JSON.
pub(super) fn blotted(line: &str, telltales: &[String]) -> String {
    let mut line = line.to_owned();
    for secret in telltales {
        let json = serde_json::Value::from(secret.as_str()).to_string();
        for form in [secret.as_str(), json.trim_matches('"')] {
            if line.contains(form) {
                line = line.replace(form, "***");
            }
        }
    }
    line
}

/// A reason for people: one line, not too long.
pub(super) fn reason(text: &str) -> String {
    let words = printable(&text.split_whitespace().collect::<Vec<_>>().join(" "));
    match words.char_indices().nth(JOB_REASON_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    }
}

/// The host that a line of Ansible's is about, if it names one.
pub(super) fn host_of(line: &str) -> Option<&str> {
    for word in ["changed: [", "ok: [", "fatal: [", "failed: [", "skipping: [", "unreachable: ["] {
        if let Some(rest) = line.strip_prefix(word) {
            return rest.split([']', ' ']).next();
        }
    }
    let (host, rest) = line.split_once(" : ")?;
    rest.starts_with("ok=").then(|| host.trim_end())
}

/// A heading as Ansible writes it where there is no terminal.
pub(super) fn heading(text: &str) -> String {
    let stars = ANSIBLE_COLUMNS.saturating_sub(text.chars().count() + 1).max(3);
    format!("{text} {}", "*".repeat(stars))
}

/// Ansible's width without a terminal.
const ANSIBLE_COLUMNS: usize = 79;

/// A host's line in the recap, as Ansible writes it.
pub(super) fn recap(host: &str, [ok, changed, unreachable, failed, skipped]: [u8; 5]) -> String {
    format!(
        "{host:<26} : ok={ok:<4} changed={changed:<4} unreachable={unreachable:<4} failed={failed:<4} \
         skipped={skipped:<4} rescued=0    ignored=0   "
    )
}

/// Ansible's word on a host that failed.
pub(super) fn fatal(host: &str, unreachable: bool, reason: &str) -> String {
    let word = if unreachable { "UNREACHABLE!" } else { "FAILED!" };
    let details = serde_json::json!({ "changed": false, "msg": reason });
    format!("fatal: [{host}]: {word} => {details}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_reaches_a_terminal() {
        let mut splitter = Splitter::default();
        let lines = splitter.push(b"a\x1b[31mred\x07\r\nb\xff\xfe\tc\nrest");
        assert_eq!(lines, ["a\\x1b[31mred\\x07", "b\u{fffd}\u{fffd}\tc"]);
        assert_eq!(splitter.rest().as_deref(), Some("rest"));
        assert_eq!(printable("a\u{202e}b\u{9b}c\u{2028}d"), "a\u{fffd}b\u{fffd}c\u{fffd}d");
        let long = splitter.push(&[vec![b'x'; 3 * JOB_LINE_BYTES_MAX], b"\n".to_vec()].concat());
        assert_eq!(long[0].len(), JOB_LINE_BYTES_MAX + '…'.len_utf8());
    }

    #[test]
    fn secrets_are_blotted_out_in_each_form() {
        let secrets = ["p\"w\\d".to_owned(), "plain-one".to_owned()];
        assert_eq!(blotted("x p\"w\\d y plain-one", &secrets), "x *** y ***");
        assert_eq!(blotted(r#"{"a": "p\"w\\d"}"#, &secrets), r#"{"a": "***"}"#);
    }

    #[test]
    fn lines_name_their_hosts() {
        assert_eq!(host_of("changed: [192.0.2.1]"), Some("192.0.2.1"));
        assert_eq!(host_of("fatal: [h1]: UNREACHABLE! => {}"), Some("h1"));
        assert_eq!(host_of("h1                         : ok=1    changed=1"), Some("h1"));
        assert_eq!(host_of("PLAY [all] ***"), None);
        assert_eq!(host_of("a : b"), None);
        assert_eq!(host_of(&recap("h2", [1, 0, 0, 0, 0])), Some("h2"));
        assert_eq!(heading("PLAY [all]").len(), 79);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_printable(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut splitter = Splitter::default();
            let mut lines = splitter.push(&bytes);
            lines.extend(splitter.rest());
            prop_assert!(lines.iter().all(|l| !l.chars().any(|c| c.is_control() && c != '\t')));
        }
    }
}
