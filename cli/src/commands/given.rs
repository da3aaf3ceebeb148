//! What an option names: a file, standard input, or a variable of the environment. So that no list of processes and no
//! shell's history shows what is in there.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use crate::client::ClientError;
use crate::exit::Failure;
use crate::limits::FILE_NAME_BYTES_MAX;

/// The text in a file, or on standard input where the file is `-`; at most `most` bytes.
///
/// # Errors
/// Why it can't be had, with the option's name.
pub(super) fn text(option: &str, file: &Path, most: u64) -> Result<String, Failure> {
    // What can be no file's name may be the secret itself.
    let name = file.to_string_lossy();
    let no_name =
        name.contains(char::is_control) || name.split('/').any(|part| part.len() > FILE_NAME_BYTES_MAX);
    let name = if no_name { "(what was given)".into() } else { name };
    let wrong = |why: &dyn std::fmt::Display| Failure::Usage(format!("{option} {name}: {why}"));
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

/// What the API says of its fields, said of the options that they came from: the first that fits counts, for all that is
/// below a field as well.
pub(super) fn options(error: ClientError, options: &[(String, String)]) -> ClientError {
    let ClientError::Refused { status: status @ (400 | 422), detail, fields } = error else { return error };
    // A field that only begins alike is another one.
    let below = |text: &str, field: &str| {
        let rest = text.strip_prefix(field)?;
        let whole = !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        whole.then(|| rest.to_owned())
    };
    let of =
        |text: &str| options.iter().find_map(|(field, option)| Some((option.clone(), below(text, field)?)));
    let fields = fields.into_iter().map(|(field, why)| match of(&field) {
        Some((option, _)) => (option, why),
        None => (field, why),
    });
    let fields = fields.collect();
    let detail = match of(&detail) {
        Some((option, rest)) => format!("{option}: {}", rest.trim_start_matches([':', ' '])),
        None => detail,
    };
    ClientError::Refused { status, detail, fields }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_become_the_options_they_came_from() {
        let table = [("targets[0]", "--to a"), ("keep", "--keep"), ("url", "the address")];
        let table = table.map(|(field, option)| (field.to_owned(), option.to_owned()));
        let refused = |status, detail: &str, fields: &[&str]| ClientError::Refused {
            status,
            detail: detail.into(),
            fields: fields.iter().map(|field| ((*field).to_owned(), "is bad".to_owned())).collect(),
        };
        let said = |error| options(error, &table).to_string();
        let wrong = refused(422, "", &["targets[0].auth", "targets[1]", "keep", "keeper"]);
        let named = "--to a: is bad; targets[1]: is bad; --keep: is bad; keeper: is bad";
        assert_eq!(said(wrong), format!("the controller says: {named} (422)"));
        assert!(said(refused(400, "url must be one", &[])).contains("says: the address: must be one"));
        assert!(said(refused(404, "url must be one", &[])).contains("says: url must be one"));
    }

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
