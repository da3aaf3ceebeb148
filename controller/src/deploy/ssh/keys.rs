//! Opens private keys before the run: a wrong passphrase is one host's error at once, and nobody is asked again.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::files::{RunDir, key_name};
use crate::deploy::secrets::{Auth, Login};
use crate::deploy::stop::Stop;
use crate::deploy::text;
use crate::limits::KEYGEN_SECONDS_MAX;

/// Leaves a host's key in the directory, readable without a passphrase; says in words for people why it can't.
pub(super) async fn open(dir: &RunDir, index: usize, login: &Login, stop: &Stop) -> Result<(), String> {
    let Auth::PrivateKey { private_key, passphrase } = &login.auth else { return Ok(()) };
    let unusable = |e: std::io::Error| format!("the private key could not be written: {e}");
    let path = dir.write(&key_name(index), private_key.reveal().as_bytes()).map_err(unusable)?;
    if stop.reason().is_some() {
        return Ok(());
    }
    // The passphrase goes through the standard input: it is in no argument and no environment. A key without one is not
    // asked for it.
    let mut child = Command::new("ssh-keygen")
        .args(["-q", "-p", "-N", "", "-f"])
        .arg(&path)
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // Without a terminal to ask at.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| format!("ssh-keygen could not be started: {e}; install OpenSSH's client"))?;
    let given = passphrase.as_ref().map_or("", |p| p.reveal());
    if let Some(mut input) = child.stdin.take() {
        // It may not want to know.
        if let Err(error) = input.write_all(format!("{given}\n").as_bytes()).await {
            tracing::trace!(%error, "ssh-keygen took no passphrase");
        }
    }
    let limit = Duration::from_secs(KEYGEN_SECONDS_MAX);
    let output = match tokio::time::timeout(limit, child.wait_with_output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(format!("ssh-keygen: {error}")),
        Err(_) => {
            return Err(format!("ssh-keygen did not open the private key within {} s", limit.as_secs()));
        }
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).replace(&path.display().to_string(), "the key");
    Err(match (said.contains("incorrect passphrase"), passphrase) {
        (true, Some(_)) => "the passphrase does not open the private key".to_owned(),
        (true, None) => "the private key needs a passphrase, and none was given".to_owned(),
        (false, _) => format!("the private key can't be read: {}", text::reason(&said)),
    })
}
