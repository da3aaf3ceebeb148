//! Deployments: one commit of a git repository, brought to a directory of this host.
//!
//! The agent does not do it itself. It starts a *driver* as it starts a command, through the launcher: this very program
//! as the target user, in a cgroup or tree of its own. So output streams, time limits, cancels, the journal and
//! `interrupted` are those of commands. The driver's plan is its standard input, a file in memory, so that nothing of it
//! is seen in arguments or environments; what it did it writes into a report, a file that the agent made for it.
//!
//! [`driver`] decides by phase and strategy, [`in_place`] and [`releases`] do it, [`git`] is the only one that starts
//! git, [`place`] says where a path really leads and holds its lock.

mod driver;
mod git;
mod hooks;
mod in_place;
mod job;
mod known;
mod place;
mod plan;
mod releases;
mod say;
mod secrets;
mod store;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use signet_common::deploy::{Credential, Deploy};
use signet_common::ids::Jti;
use signet_common::limits::OUTPUT_BYTES_DEFAULT;
use signet_common::messages::{CommandResult, Outcome};
use signet_common::seal::Binding;

use crate::identity::DataDir;
use crate::launch::DRIVER;
use crate::limits::{DEPLOY_REPORT_BYTES_MAX, DRIFT_LOOK_MAX, REASON_BYTES_MAX};
use crate::policy::DeployRoots;
use crate::run::{CannotStart, Program, Spec};
pub(crate) use known::{Known, Last};
use plan::{Plan, Report, Secret};

/// Reports of deployments that run, one file each.
const REPORTS: &str = "deploys";
/// What names proxies there.
const PROXIES: [&str; 5] = ["http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];

/// What git may have of the agent's own environment: whose certificates count, and over which proxy the way leads. None of
/// it names a program. `HTTP_PROXY` is no name that git knows.
const REACH: [&str; 9] = [
    "GIT_SSL_CAINFO",
    "SSL_CERT_FILE",
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
];

/// Becomes the driver when this process was started as one, and does not return then. Before any thread or runtime
/// exists.
pub fn main_if_driver() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == DRIVER) {
        std::process::exit(driver::main(arguments.next()));
    }
}

/// Where and as whom this agent is.
pub(crate) struct Here<'a> {
    /// The agent's directory.
    pub(crate) data: &'a DataDir,
    /// Below what deployments may go.
    pub(crate) roots: &'a DeployRoots,
    /// Whether this host runs not just any shell command.
    pub(crate) narrowed: bool,
    /// The agent's own account.
    pub(crate) own_user: &'a str,
}

/// What is to be run for a deployment, and where its report will be.
///
/// # Errors
/// [`CannotStart`] when the credential is not for this agent, or the data directory can't be used.
pub(crate) fn prepare(deploy: &Deploy, here: &Here<'_>) -> Result<(Spec, Reported), CannotStart> {
    let secret =
        deploy.credential.as_ref().map(|credential| open(deploy, credential, here.data)).transpose()?;
    let plan = Plan {
        deploy: Deploy { approval: None, ..deploy.clone() },
        secret: secret.map(Secret::new),
        roots: here.roots.clone(),
        narrowed: here.narrowed,
        look: false,
    };
    spec(&plan, here)
}

/// What is to be run to see how a path stands. Nothing of it changes, and no remote is asked.
///
/// # Errors
/// [`CannotStart`] when the data directory can't be used.
pub(crate) fn look(last: &Last, here: &Here<'_>) -> Result<(Spec, Reported), CannotStart> {
    let deploy = Deploy { jti: Jti::generate(), ..last.deploy.clone() };
    let plan = Plan { deploy, secret: None, roots: here.roots.clone(), narrowed: here.narrowed, look: true };
    let (spec, reported) = self::spec(&plan, here)?;
    Ok((Spec { timeout: DRIFT_LOOK_MAX, ..spec }, reported))
}

fn spec(plan: &Plan, here: &Here<'_>) -> Result<(Spec, Reported), CannotStart> {
    let deploy = &plan.deploy;
    let reports = here.data.path().join(REPORTS);
    fs::create_dir_all(&reports)
        .map_err(|error| CannotStart::exec(format!("no room for a report: {error}")))?;
    let report = reports.join(deploy.jti.as_str());
    let plan = serde_json::to_string(plan).map_err(|error| CannotStart::exec(error.to_string()))?;
    let own = deploy.user.as_deref().is_none_or(|user| user == here.own_user);
    let spec = Spec {
        jti: deploy.jti.clone(),
        program: Program::Deploy(report.clone()),
        env: environment(own, |name| std::env::var(name).ok()),
        cwd: Some(PathBuf::from("/")),
        stdin: Some(plan),
        user: deploy.user.clone(),
        timeout: Duration::from_secs(deploy.timeout.into()),
        output_limit: OUTPUT_BYTES_DEFAULT,
        detached: false,
    };
    Ok((spec, Reported { file: report }))
}

/// What a driver gets of the agent's environment. The home goes along only when the user is the agent's `own`.
fn environment(own: bool, agents: impl Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    let names = REACH.into_iter().chain(own.then_some("HOME"));
    names.filter_map(|name| Some((name.to_owned(), agents(name)?))).collect()
}

fn open(deploy: &Deploy, credential: &Credential, data: &DataDir) -> Result<String, CannotStart> {
    let key = data.sealing_key().map_err(|error| CannotStart::exec(error.to_string()))?;
    let not_ours = || CannotStart::exec("the credential was not sealed to this host for this deployment");
    let agent = deploy.aud.first().ok_or_else(not_ours)?;
    let binding = Binding { jti: &deploy.jti, agent, field: Credential::FIELD };
    let secret = key.open(&credential.sealed, binding).map_err(|_| not_ours())?;
    String::from_utf8(secret).map_err(|_| not_ours())
}

/// The begin of a reason.
fn bounded(mut reason: String) -> String {
    reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
    reason
}

/// Removes the reports of deployments that an earlier start of the agent had running.
///
/// # Errors
/// The system's.
pub(crate) fn forget(data_dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(data_dir.join(REPORTS)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Where a driver says what it did. The file goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Reported {
    file: PathBuf,
}

impl Reported {
    /// Adds the driver's word to how its process ended. It is the target user's word: only its form is trusted.
    pub(crate) fn amend(&self, result: &mut CommandResult) {
        let report = match self.read() {
            Ok(report) => report,
            Err(error) => {
                tracing::debug!(%error, "a deployment ended without a report");
                return;
            }
        };
        result.deploy = Some(Box::new(report.deploy));
        if result.outcome == Outcome::Failed && result.reason.is_none() {
            result.reason = report.fault.map(bounded);
        }
    }

    fn read(&self) -> io::Result<Report> {
        let mut text = Vec::new();
        fs::File::open(&self.file)?.take(DEPLOY_REPORT_BYTES_MAX).read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }
}

impl Drop for Reported {
    fn drop(&mut self) {
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(file = %self.file.display(), %error, "a deployment's report remains");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_and_certificates_go_along_and_nothing_that_names_a_program() {
        let agents = |name: &str| Some(format!("the agent's {name}"));
        let env = environment(false, agents);
        for name in ["http_proxy", "https_proxy", "HTTPS_PROXY", "no_proxy", "GIT_SSL_CAINFO"] {
            assert_eq!(env[name], format!("the agent's {name}"));
        }
        assert!(!env.contains_key("HOME") && !env.keys().any(|name| name.contains("COMMAND")));
        assert!(environment(true, agents).contains_key("HOME"));
        assert!(environment(true, |_| None).is_empty());
    }
}
