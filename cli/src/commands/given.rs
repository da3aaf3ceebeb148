//! What an option names: a file, standard input, or a variable of the environment. So that no list of processes and no
//! shell's history shows what is in there.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use crate::exit::Failure;

/// The text in a file, or on standard input where the file is `-`; at most `most` bytes.
///
/// # Errors
/// Why it can't be had, with the option's name.
pub(super) fn text(option: &str, file: &Path, most: u64) -> Result<String, Failure> {
    let wrong = |why: &dyn std::fmt::Display| Failure::Usage(format!("{option} {}: {why}", file.display()));
    let named = |error: io::Error| wrong(&error);
    let mut bytes = Vec::new();
    let read = if file.as_os_str() == "-" {
        io::stdin().lock().take(most + 1).read_to_end(&mut bytes)
    } else {
        File::open(file).map_err(named)?.take(most + 1).read_to_end(&mut bytes)
    };
    read.map_err(named)?;
    if bytes.len() as u64 > most {
        return Err(wrong(&format!("larger than {most} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| wrong(&"not a UTF-8 text"))
}

/// What a variable of the environment holds.
///
/// # Errors
/// That there is no such variable, or nothing in it, with the option's name. A name that looks like none is not repeated:
/// it may be the secret itself.
pub(super) fn variable(option: &str, name: &str) -> Result<String, Failure> {
    let found = std::env::var(name).ok().filter(|text| !text.is_empty());
    found.ok_or_else(|| {
        let plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        let name = if name.chars().all(plain) { name } else { "variable of this name" };
        Failure::Usage(format!("{option}: there is no {name} in the environment"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_a_text_of_bounded_size() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("in");
        let read = |bytes: &[u8]| {
            std::fs::write(&file, bytes).unwrap();
            text("--in", &file, 4).map_err(|e| e.to_string())
        };
        assert_eq!(read(b"text").unwrap(), "text");
        for (bad, why) in [(&b"texts"[..], "larger than 4 bytes"), (b"\xff", "UTF-8")] {
            let said = read(bad).unwrap_err();
            assert!(said.starts_with("--in /") && said.contains(why), "{said}");
        }
        assert!(text("--in", &dir.path().join("none"), 4).unwrap_err().to_string().contains("none"));
    }
}
