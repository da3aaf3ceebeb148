//! The agent's systemd unit, as `join` and `leave` handle it.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::config::DATA_DIR;

/// The unit's name.
const NAME: &str = "signet-agent.service";
/// As it is in this version. Its settings are those of the data directory.
const TEXT: &str = include_str!("../../systemd/signet-agent.service");
/// The program that `TEXT` starts.
const PACKAGED: &str = "/usr/bin/signet-agent";
/// Where an admin's own units lie.
const ADMINS: &str = "/etc/systemd/system";

/// systemd, on a host where the agent is its service.
pub(crate) struct Unit(());

impl Unit {
    /// The unit whose data directory this is, where systemd runs.
    pub(crate) fn of(data_dir: &Path) -> Option<Self> {
        let serves = data_dir == Path::new(DATA_DIR) && Path::new("/run/systemd/system").is_dir();
        serves.then_some(Self(()))
    }

    /// Writes the unit unless there is one, and starts it, now and at every boot.
    pub(crate) fn start(&self) -> anyhow::Result<()> {
        if !self.is_there()? {
            let program = std::env::current_exe().context("this program's own path")?;
            let text = text_for(&program)?;
            let path = Path::new(ADMINS).join(NAME);
            fs::write(&path, text).with_context(|| path.display().to_string())?;
            self.systemctl(&["daemon-reload"])?;
            println!("{} was written", path.display());
        }
        self.systemctl(&["enable", "--quiet", NAME])?;
        // One that runs already would not see what `join` noted.
        self.systemctl(&["restart", NAME])
    }

    /// Stops the unit, if there is one; says whether it ran.
    pub(crate) fn stop(&self) -> anyhow::Result<bool> {
        if !self.is_there()? {
            return Ok(false);
        }
        let ran = self.property("ActiveState")? == "active";
        self.systemctl(&["stop", NAME])?;
        Ok(ran)
    }

    /// Stops the unit for good.
    pub(crate) fn disable(&self) -> anyhow::Result<()> {
        if self.is_there()? { self.systemctl(&["disable", "--quiet", "--now", NAME]) } else { Ok(()) }
    }

    /// What the agent last said of itself.
    pub(crate) fn status(&self) -> io::Result<String> {
        self.property("StatusText")
    }

    fn is_there(&self) -> io::Result<bool> {
        Ok(self.property("LoadState")? == "loaded")
    }

    fn property(&self, name: &str) -> io::Result<String> {
        let said = Command::new("systemctl")
            .args(["show", "--value", "--property", name, NAME])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()?;
        Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
    }

    fn systemctl(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let status = Command::new("systemctl").args(arguments).stdin(Stdio::null()).status();
        let status = status.context("systemctl")?;
        if !status.success() {
            bail!(
                "systemctl {} failed ({status}); journalctl -u signet-agent tells why",
                arguments.join(" ")
            );
        }
        Ok(())
    }
}

/// The unit for a program that may lie elsewhere than a package puts it.
fn text_for(program: &Path) -> anyhow::Result<String> {
    let program =
        program.to_str().filter(|p| p.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+".contains(&b)));
    let program =
        program.context("this program's path has characters that a unit can't name; put it into /usr/bin")?;
    Ok(TEXT.replace(&format!("ExecStart={PACKAGED}"), &format!("ExecStart={program}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_starts_this_program() {
        let text = text_for(Path::new("/usr/local/bin/signet-agent")).unwrap();
        assert!(text.contains("\nExecStart=/usr/local/bin/signet-agent\n") && !text.contains(PACKAGED));
        assert_eq!(text_for(Path::new(PACKAGED)).unwrap(), TEXT);
        assert!(TEXT.contains(&format!("SIGNET_DATA_DIR={DATA_DIR}\n")));
        for odd in ["/opt/a b/agent", "/opt/%n/agent", "/opt/a\nExecStartPre=/bin/x"] {
            assert!(text_for(Path::new(odd)).is_err(), "{odd}");
        }
    }

    #[test]
    fn another_data_directory_is_no_services() {
        assert!(Unit::of(Path::new("/tmp/agent")).is_none());
    }
}
