//! Lines of an OpenSSH `allowed_signers` file, as git reads them.

use signet_common::sshsig::SshPublicKey;

use crate::limits::ALLOWED_SIGNERS_BYTES_MAX;

/// Checks that every line names somebody and a key, and that there is one: a list of nobody would refuse everything, and
/// is sooner a mistake.
///
/// # Errors
/// What is wrong, for a person.
pub fn read(text: &str) -> Result<String, String> {
    if text.len() > ALLOWED_SIGNERS_BYTES_MAX {
        return Err(format!("must have at most {ALLOWED_SIGNERS_BYTES_MAX} bytes"));
    }
    let text = text.replace("\r\n", "\n");
    let mut signers = 0;
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        // After the principals, and perhaps options.
        let key = words.windows(2).skip(1).any(|two| two.join(" ").parse::<SshPublicKey>().is_ok());
        if !key || line.contains(|c: char| c.is_control() && c != '\t') {
            return Err(format!("line {}: must name somebody and a key: `name ssh-ed25519 AAAA…`", at + 1));
        }
        signers += 1;
    }
    if signers == 0 { Err("must name at least one signer".into()) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    #[test]
    fn each_line_has_a_key() {
        for good in [
            format!("alice@example.com {KEY}"),
            format!("# people\n\n*@example.com namespaces=\"git\" {KEY} comment\r\nbob {KEY}\n"),
            format!("\"a b\" valid-before=\"20300101Z\" {KEY}"),
        ] {
            read(&good).unwrap();
        }
        for bad in
            ["", "# nobody", "alice", KEY, "alice ssh-ed25519 x", &format!("a {KEY}\nbob"), "a b\u{7} c"]
        {
            read(bad).unwrap_err();
        }
    }
}
