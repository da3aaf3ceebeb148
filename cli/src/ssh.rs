//! SSH signatures, made by `ssh-keygen`: it knows passphrases, agents and security keys.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use signet_common::statement::NAMESPACE;

use crate::exit::Failure;

/// Names of keys in `~/.ssh`, in the order in which they are tried.
const NAMES: [&str; 5] = ["id_ed25519", "id_ed25519_sk", "id_ecdsa", "id_ecdsa_sk", "id_rsa"];

/// The key that was given, else the first one of `~/.ssh`.
///
/// # Errors
/// When there is none.
pub(crate) fn key(given: Option<PathBuf>) -> Result<PathBuf, Failure> {
    if let Some(key) = given {
        return Ok(key);
    }
    let dir = std::env::var_os("HOME").map(|home| Path::new(&home).join(".ssh"));
    let found = dir.and_then(|dir| NAMES.into_iter().map(|name| dir.join(name)).find(|key| key.is_file()));
    found.ok_or_else(|| Failure::Usage("there is no SSH key in ~/.ssh: give --key FILE, or --no-sign".into()))
}

/// The armored signature of an approval over these bytes. They go through a pipe and lie in no file; a passphrase is asked
/// for on the terminal.
///
/// # Errors
/// When `ssh-keygen` is not there or does not sign; it says itself why.
pub(crate) fn sign(key: &Path, bytes: &[u8]) -> Result<String, Failure> {
    let failed = |what: &str| Failure::Io(io::Error::other(format!("ssh-keygen: {what}")));
    let mut child = Command::new("ssh-keygen")
        .args(["-q", "-Y", "sign", "-n", NAMESPACE, "-f"])
        .arg(key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| failed(&e.to_string()))?;
    // It reads everything before it writes anything. What it does not read, its status tells.
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(bytes).ok();
    }
    let done = child.wait_with_output()?;
    let text = String::from_utf8(done.stdout).ok().filter(|text| text.contains("BEGIN SSH SIGNATURE"));
    text.filter(|_| done.status.success()).ok_or_else(|| failed("it made no signature"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use signet_common::sshsig;

    #[test]
    fn a_signature_is_one_for_approvals() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let made =
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path).status();
        assert!(made.unwrap().success());
        let large = vec![b'x'; 300_000];
        let signature = sign(&path, &large).unwrap();
        let signer = sshsig::verify(&signature, NAMESPACE, &large).unwrap();
        let public = std::fs::read_to_string(path.with_extension("pub")).unwrap();
        assert_eq!(signer, public.parse().unwrap());
        assert!(sign(&dir.path().join("none"), b"x").is_err());
    }
}
