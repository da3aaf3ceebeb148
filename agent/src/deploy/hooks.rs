//! What a deployment runs of its own: hooks, and the question whether a release is healthy.

use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use signet_common::deploy::{CommitId, Health, Probe};

use super::plan::Fault;
use super::say::say;
use crate::http;
use crate::limits::{HEALTH_URL_CHARS_SHOWN, PROBE_LOOK_EVERY};

/// What a hook has of the driver's environment.
const KEPT: [&str; 6] = ["HOME", "USER", "LOGNAME", "SHELL", "PATH", "SIGNET_JTI"];

/// Where a hook runs, and what it is told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stage<'a> {
    /// The deployed path.
    pub(super) path: &'a Path,
    /// The release's directory, in which hooks run.
    pub(super) release: &'a Path,
    /// Its commit.
    pub(super) commit: &'a CommitId,
}

impl Stage<'_> {
    fn command(&self, text: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(text).current_dir(self.release).stdin(Stdio::null());
        command.env_clear().envs(KEPT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command
            .env("SIGNET_COMMIT", self.commit.as_str())
            .env("SIGNET_RELEASE", self.release)
            .env("SIGNET_PATH", self.path);
        command
    }

    /// Runs hooks one after the other. `what` names them for a person.
    ///
    /// # Errors
    /// The first that fails.
    pub(super) fn run(&self, what: &str, hooks: &[String]) -> Result<(), Fault> {
        for (number, hook) in (1..).zip(hooks) {
            let line: String = hook.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            say(&format!("{what} hook {number}: {line}"));
            let status = self.command(hook).status();
            let status = status.map_err(Fault::of(format!("{what} hook {number} can't be run")))?;
            if !status.success() {
                return Err(Fault::new(format!("{what} hook {number} failed: {}", ended(status))));
            }
        }
        Ok(())
    }

    /// Asks until the release is healthy. What one attempt says after another is said once.
    ///
    /// # Errors
    /// It is not, after all attempts; what the last one said.
    pub(super) fn prove(&self, health: &Health) -> Result<(), Fault> {
        let mut why = String::new();
        for attempt in 1..=health.attempts {
            match self.probe(health) {
                Ok(()) => {
                    say(&format!("healthy after {attempt} of {} attempts", health.attempts));
                    return Ok(());
                }
                Err(same) if same == why => {}
                Err(news) => {
                    say(&format!("health check {attempt} of {}: {news}", health.attempts));
                    why = news;
                }
            }
            if attempt < health.attempts {
                sleep(Duration::from_secs(health.pause.into()));
            }
        }
        let at = match &health.probe {
            Probe::Command(_) => String::new(),
            Probe::Http { url, .. } => format!("{} says: ", without_user(url)),
        };
        let (attempts, s) = (health.attempts, if health.attempts == 1 { "" } else { "s" });
        Err(Fault::new(format!("the release is not healthy after {attempts} attempt{s}: {at}{why}")))
    }

    fn probe(&self, health: &Health) -> Result<(), String> {
        let timeout = Duration::from_secs(health.timeout.into());
        match &health.probe {
            Probe::Command(text) => self.within(text, timeout),
            Probe::Http { url, expect_status } => match http::status_of(url, timeout)? {
                status if status == *expect_status => Ok(()),
                status => Err(format!("status {status} instead of {expect_status}")),
            },
        }
    }

    fn within(&self, text: &str, timeout: Duration) -> Result<(), String> {
        use std::os::unix::process::CommandExt as _;
        let mut child = self.command(text).process_group(0).spawn().map_err(|error| error.to_string())?;
        let until = Instant::now() + timeout;
        loop {
            match child.try_wait().map_err(|error| error.to_string())? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(ended(status)),
                None if Instant::now() < until => sleep(PROBE_LOOK_EVERY),
                None => {
                    let group = i32::try_from(child.id()).map_err(|error| error.to_string())?;
                    killpg(Pid::from_raw(group), Signal::SIGKILL).map_err(|error| error.to_string())?;
                    child.wait().map_err(|error| error.to_string())?;
                    return Err(format!("no answer within {} s", timeout.as_secs()));
                }
            }
        }
    }
}

/// An address as it may be shown: without its user and password, and no longer than a line.
fn without_user(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}").chars().take(HEALTH_URL_CHARS_SHOWN).collect()
}

fn ended(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_user() {
        for (url, shown) in [
            ("http://127.0.0.1:1/health", "http://127.0.0.1:1/health"),
            ("https://bob:hunter2@example.com:8443/a@b?c=d@e", "https://example.com:8443/a@b?c=d@e"),
            ("https://bob:hunter2@example.com", "https://example.com"),
            ("https://b@b@example.com?x", "https://example.com?x"),
        ] {
            assert_eq!(without_user(url), shown);
        }
    }
}
