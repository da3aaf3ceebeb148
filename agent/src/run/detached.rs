//! Commands that outlive the agent: each in a systemd unit of its own, started and then left alone.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use nix::unistd::{Uid, User, getuid};
use signet_common::messages::{CommandResult, Outcome, Rejection, StreamSummary};

use super::{CannotStart, Program, Spec};
use crate::limits::{DETACH_MAX, TERM_GRACE};

/// Exists exactly when systemd is PID 1.
const SYSTEMD: &str = "/run/systemd/system";
const SYSTEMD_RUN: &str = "/usr/bin/systemd-run";
const UNIT_PREFIX: &str = "signet-";
/// What an environment's file has behind the unit's name.
const ENVIRONMENT_SUFFIX: &str = ".service.env";

/// A unit that `systemd-run` is about to start.
#[derive(Debug)]
pub(crate) struct Unit {
    name: String,
    /// The command's environment; read by systemd before `systemd-run` ends.
    environment: Option<PathBuf>,
}

impl Unit {
    /// The result of `systemd-run` as that of the detached command: its output is the unit's name.
    pub(crate) fn report(&self, result: &mut CommandResult) {
        if result.outcome == Outcome::Succeeded {
            result.stdout = format!("{}\n", self.name).into_bytes();
            result.stdout_summary = StreamSummary {
                bytes: result.stdout.len() as u64,
                sha256: hex::encode(digest(&SHA256, &result.stdout)),
                ..StreamSummary::default()
            };
        }
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        if let Some(file) = &self.environment
            && let Err(error) = fs::remove_file(file)
        {
            tracing::warn!(file = %file.display(), %error, "the environment of a detached command remains");
        }
    }
}

/// The command that has systemd run this one. Blocks: user databases can be slow.
///
/// # Errors
/// No systemd, no such user, no right to become it, or `stdin`, which a unit cannot be given.
pub(crate) fn prepare(spec: &Spec, data_dir: &Path) -> Result<(Spec, Unit), CannotStart> {
    if spec.stdin.is_some() {
        let detail = "a detached command takes no stdin".into();
        return Err(CannotStart { reason: Rejection::Unsupported, detail });
    }
    if !Path::new(SYSTEMD).is_dir() || !Path::new(SYSTEMD_RUN).is_file() {
        return Err(CannotStart::exec("no systemd on this host"));
    }
    let manager = Manager::of(spec.user.as_deref())?;
    let name = format!("{UNIT_PREFIX}{}.service", spec.jti);
    let file = format!("{UNIT_PREFIX}{}{ENVIRONMENT_SUFFIX}", spec.jti);
    let environment = match spec.env.is_empty() {
        true => None,
        // Not in the environment or the arguments of systemd-run: it may have more rights than the command's user,
        // whom LD_PRELOAD would give them, and arguments can be read by everybody.
        false => Some(write_environment(&data_dir.join(file), &spec.env)?),
    };
    let argv = arguments(spec, &name, &manager, environment.as_deref());
    let mut env = BTreeMap::new();
    if let Manager::OfUser(uid) = manager {
        env.insert("XDG_RUNTIME_DIR".to_owned(), format!("/run/user/{uid}"));
    }
    let run = Spec {
        jti: spec.jti.clone(),
        program: Program::Argv(argv),
        env,
        cwd: Some(PathBuf::from("/")),
        stdin: None,
        user: None,
        timeout: DETACH_MAX,
        output_limit: spec.output_limit,
        detached: false,
    };
    Ok((run, Unit { name, environment }))
}

/// Removes the environments that an agent which was killed has left: they may hold secrets.
///
/// # Errors
/// The system's.
pub(crate) fn forget(data_dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(data_dir)? {
        let entry = entry?;
        let is_ours = |name: &str| name.starts_with(UNIT_PREFIX) && name.ends_with(ENVIRONMENT_SUFFIX);
        if entry.file_name().to_str().is_some_and(is_ours) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Which systemd takes it.
#[derive(Debug, PartialEq, Eq)]
enum Manager {
    /// PID 1, which becomes this user.
    OfSystem(String),
    /// That of the agent's own user.
    OfUser(Uid),
}

impl Manager {
    fn of(requested: Option<&str>) -> Result<Self, CannotStart> {
        let own = getuid();
        let found = match requested {
            Some(name) => User::from_name(name),
            None => User::from_uid(own),
        };
        let user =
            found.map_err(|error| CannotStart::exec(format!("the user database cannot be read: {error}")))?;
        match (user, requested) {
            (None, Some(name)) => Err(CannotStart::exec(format!("there is no user {name} on this host"))),
            (Some(user), _) if own.is_root() => Ok(Self::OfSystem(user.name)),
            (None, None) if own.is_root() => Ok(Self::OfSystem("root".into())),
            (Some(user), _) if user.uid != own => Err(CannotStart::exec(format!(
                "the agent may not become {}: it runs as user {own}, not as root",
                user.name
            ))),
            _ => Ok(Self::OfUser(own)),
        }
    }
}

fn arguments(spec: &Spec, name: &str, manager: &Manager, environment: Option<&Path>) -> Vec<String> {
    let property = |name: &str, value: &str| format!("--property={name}={value}");
    let milliseconds = |time: Duration| format!("{}ms", time.as_millis());
    let mut argv = vec![
        SYSTEMD_RUN.to_owned(),
        "--quiet".into(),
        "--collect".into(),
        "--no-ask-password".into(),
        // Waits for the exec, so that a program that is not there is told.
        "--service-type=exec".into(),
        format!("--unit={name}"),
        property("RuntimeMaxSec", &milliseconds(spec.timeout)),
        property("TimeoutStopSec", &milliseconds(TERM_GRACE)),
    ];
    match manager {
        Manager::OfSystem(user) => argv.push(format!("--uid={user}")),
        Manager::OfUser(_) => argv.push("--user".into()),
    }
    // "-~": home, or / when that is missing.
    let cwd = spec.cwd.as_ref().map_or_else(|| "-~".to_owned(), |cwd| cwd.display().to_string());
    argv.push(property("WorkingDirectory", &cwd));
    argv.extend(environment.map(|file| property("EnvironmentFile", &file.display().to_string())));
    argv.push("--".into());
    let program = match &spec.program {
        Program::Shell(text) => vec!["/bin/sh".to_owned(), "-c".to_owned(), text.clone()],
        Program::Argv(argv) => argv.clone(),
        // Nobody asks for it: a deployment is followed.
        Program::Deploy(_) => vec!["/bin/false".to_owned()],
    };
    // systemd would put its own variables where a $ stands.
    argv.extend(program.into_iter().map(|argument| argument.replace('$', "$$")));
    argv
}

fn write_environment(file: &Path, env: &BTreeMap<String, String>) -> Result<PathBuf, CannotStart> {
    let text: String = env.iter().map(|(name, value)| format!("{name}={}\n", quoted(value))).collect();
    let write = || {
        let mut open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
        open.write_all(text.as_bytes())
    };
    write().map_err(|error| CannotStart::exec(format!("the environment cannot be passed on: {error}")))?;
    Ok(file.to_owned())
}

/// A value as systemd.exec(5) reads it from an `EnvironmentFile`.
fn quoted(value: &str) -> String {
    let mut quoted = String::from('"');
    for character in value.chars() {
        if matches!(character, '"' | '\\' | '`' | '$') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use signet_common::Jti;

    fn spec() -> Spec {
        Spec {
            jti: Jti::generate(),
            program: Program::Shell("echo $HOME 5$".into()),
            env: BTreeMap::from([("TOKEN".into(), "secret".into())]),
            cwd: None,
            stdin: None,
            user: None,
            timeout: Duration::from_millis(1_500),
            output_limit: 1_024,
            detached: true,
        }
    }

    #[test]
    fn everything_goes_to_systemd_as_properties_and_no_secret_as_an_argument() {
        let spec = spec();
        let manager = Manager::OfSystem("deploy".into());
        let argv = arguments(&spec, "signet-x.service", &manager, Some(Path::new("/data/x.env")));
        for expected in [
            "--unit=signet-x.service",
            "--collect",
            "--uid=deploy",
            "--property=RuntimeMaxSec=1500ms",
            "--property=WorkingDirectory=-~",
            "--property=EnvironmentFile=/data/x.env",
        ] {
            assert!(argv.iter().any(|argument| argument == expected), "{expected} in {argv:?}");
        }
        assert_eq!(argv[argv.len() - 4..], ["--", "/bin/sh", "-c", "echo $$HOME 5$$"]);
        assert!(!argv.iter().any(|argument| argument.contains("secret")));
    }

    #[test]
    fn the_environment_is_a_private_file_that_goes_with_the_unit() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let env = BTreeMap::from([("A".into(), "x\"$`\\ \n#'".into()), ("B".into(), String::new())]);
        let file = write_environment(&directory.path().join("u.env"), &env).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "A=\"x\\\"\\$\\`\\\\ \n#'\"\nB=\"\"\n");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        drop(Unit { name: "u".into(), environment: Some(file.clone()) });
        assert!(!file.exists());

        let left = write_environment(&directory.path().join("signet-0123.service.env"), &env).unwrap();
        let other = write_environment(&directory.path().join("agent.key"), &env).unwrap();
        forget(directory.path()).unwrap();
        assert!(!left.exists() && other.exists(), "an agent that was killed removes nothing");
    }

    #[test]
    fn stdin_is_refused() {
        let mut spec = spec();
        spec.stdin = Some("text".into());
        let refused = prepare(&spec, Path::new("/nowhere")).unwrap_err();
        assert_eq!(refused.reason, Rejection::Unsupported);
    }
}
