//! `POST /api/v1/jobs`: parsed and checked at the edge, all fields at once.

mod rolling;
pub(super) mod schema;
mod targets;
#[cfg(test)]
mod tests;
mod texts;
mod trust;

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use signet_common::Hostname;
use signet_common::deploy::{BadDeploy, CommitId, DeployPath, GitRef, GitUrl, Releases};

use super::model::{HostKeyPolicy, Options, Plan, RunMode};
use super::secrets::Login;
use crate::error::{Error, Result};
use crate::http::dialect::REQUIRED;
use crate::http::known::Unknown;
use crate::limits::{JOB_SECONDS, JOB_SECONDS_MAX};
use crate::repositories::Credential;

pub(super) use self::rolling::batch_size;
use self::schema::JobRequest;
use self::targets::targets;
use self::texts::{path, reference, repository, user};

/// What the operator allows and presumes.
#[derive(Debug, Clone)]
pub(super) struct Rules<'a> {
    /// Transports that a repository's address may name, as `https`.
    pub(super) protocols: &'a BTreeSet<String>,
    /// Unless the request says otherwise.
    pub(super) host_keys: HostKeyPolicy,
}

/// A request, as far as it makes sense by itself.
#[derive(Debug)]
pub(super) struct Checked {
    /// What is to be done, or all that is wrong, by field.
    pub(super) plan: Result<Plan, Vec<(String, String)>>,
    /// Those that are right, in the order of the request, each with its place there.
    pub(super) targets: Vec<(usize, Asked)>,
    /// What opens the repository, for this job alone.
    pub(super) credential: Option<Credential>,
    /// Its fields that nobody knows, which are ignored.
    pub(super) unknown: Unknown,
}

/// Whom a deployment is for.
#[derive(Debug)]
pub(super) enum Asked {
    /// A host over SSH.
    Ssh(Login),
    /// An enrolled host.
    Host(Hostname),
    /// All enrolled hosts of a group.
    Group(String),
}

/// What is wrong, by field.
#[derive(Debug, Default)]
struct Problems(Vec<(String, String)>);

impl Problems {
    fn add(&mut self, field: impl Into<String>, why: impl Into<String>) {
        self.0.push((field.into(), why.into()));
    }

    /// The value, unless there is none or it is wrong; then that is written down.
    fn take<T>(&mut self, field: String, value: Result<Option<T>, String>) -> Option<T> {
        value.unwrap_or_else(|why| {
            self.add(field, why);
            None
        })
    }

    fn must<T>(&mut self, field: String, value: Result<Option<T>, String>) -> Option<T> {
        self.take(field, value.and_then(|found| found.map(Some).ok_or_else(|| REQUIRED.to_owned())))
    }
}

/// A field that is a text; `null` and, where it must be there, the empty text count as absent.
fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, String> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err("must be a string".into()),
    }
}

fn whole(object: &Map<String, Value>, name: &str, min: u32, max: u32) -> Result<Option<u32>, String> {
    let bad = || format!("must be a whole number from {min} to {max}");
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let number = value.as_u64().and_then(|n| u32::try_from(n).ok());
            number.filter(|n| (min..=max).contains(n)).map(Some).ok_or_else(bad)
        }
    }
}

fn flag(object: &Map<String, Value>, name: &str) -> Result<Option<bool>, String> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_bool().map(Some).ok_or_else(|| "must be true or false".into()),
    }
}

/// Checks everything that can be told without the database.
///
/// # Errors
/// When it is no object.
pub(super) fn check(body: &Value, rules: &Rules<'_>) -> Result<Checked> {
    let Some(object) = body.as_object() else {
        return Err(Error::invalid("body", "must be a JSON object"));
    };
    let mut problems = Problems::default();
    let unknown = Unknown::in_body::<JobRequest>(body);
    let get = |name| text(object, name);
    let repo = get("git_repo").and_then(|t| t.map(|t| repository(t, rules.protocols)).transpose());
    let repo = problems.must("git_repo".into(), repo);
    let branch = get("git_branch").and_then(|t| t.map(reference).transpose());
    let branch = problems.take("git_branch".into(), branch);
    let path = problems.must("dest_path".into(), get("dest_path").and_then(|t| t.map(path).transpose()));
    let word = |name: &str, values: &str| format!("{name} must be {values}");
    let mode = get("run_mode").and_then(|t| {
        t.map(|t| RunMode::parse(t).ok_or_else(|| "must be parallel or serial".to_owned())).transpose()
    });
    let mode = problems.take("run_mode".into(), mode);
    let keys = get("host_key_policy").and_then(|t| {
        t.map(|t| HostKeyPolicy::parse(t).ok_or_else(|| word("it", "pin, strict or off"))).transpose()
    });
    let keys = problems.take("host_key_policy".into(), keys);
    let timeout = problems.take("timeout".into(), whole(object, "timeout", 1, JOB_SECONDS_MAX));
    let force = problems.take("force".into(), flag(object, "force"));
    let account = problems.take("user".into(), get("user").and_then(|t| t.map(user).transpose()));
    let trust = trust::read(object, repo.as_deref(), &mut problems);
    let targets = targets(object, &mut problems);
    let rolling = rolling::rolling(object, mode, &targets, &mut problems);
    let over_ssh = targets.iter().any(|(_, target)| matches!(target, Asked::Ssh(_)));
    let releases = releases(object, over_ssh, &mut problems);
    if releases.is_some() && over_ssh {
        problems.add("strategy", "releases are made by agents, not over SSH");
    }
    if over_ssh {
        for_agents_alone(object, &mut problems);
    }
    if targets.iter().any(|(_, target)| !matches!(target, Asked::Ssh(_))) {
        for_agents([repo.as_deref(), branch.as_deref(), path.as_deref()], &mut problems);
    }
    let (Some(git_repo), Some(dest_path), true) = (repo, path, problems.0.is_empty()) else {
        return Ok(Checked { plan: Err(problems.0), targets, credential: trust.credential, unknown });
    };
    let options = Options {
        timeout: timeout.unwrap_or(JOB_SECONDS),
        host_key_policy: keys.unwrap_or(rules.host_keys),
        force: force.unwrap_or(false),
        releases,
        rolling,
        user: account,
        rollback: None,
        submodules: trust.submodules,
        filters: trust.filters,
        allowed_signers: trust.allowed_signers,
        credential: trust.credential.as_ref().map(Credential::kind),
    };
    let run_mode = mode.unwrap_or(RunMode::Parallel);
    let plan = Plan { git_repo, git_branch: branch, dest_path, run_mode, options };
    Ok(Checked { plan: Ok(plan), targets, credential: trust.credential, unknown })
}

/// Refuses what Ansible would not heed.
fn for_agents_alone(object: &Map<String, Value>, problems: &mut Problems) {
    for name in OF_RELEASES.into_iter().chain(trust::FIELDS).chain(["user"]).filter(|name| asks(object, name))
    {
        problems.add(name, "is understood by agents alone, and there is a target over SSH");
    }
}

/// Whether a field asks for anything.
fn asks(object: &Map<String, Value>, name: &str) -> bool {
    match object.get(name) {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::String(text)) => !text.is_empty() || name == "allowed_signers",
        Some(Value::Array(all)) => !all.is_empty(),
        Some(_) => true,
    }
}

/// As agents read repository, branch and path: what they would refuse is refused here.
fn for_agents([repo, branch, path]: [Option<&str>; 3], problems: &mut Problems) {
    let mut parsed = |field: &str, wrong: Option<BadDeploy>| {
        wrong.into_iter().for_each(|bad| problems.add(field, bad.why));
    };
    parsed("git_repo", repo.and_then(|t| t.parse::<GitUrl>().err()));
    parsed("git_branch", branch.and_then(|t| t.parse::<GitRef>().err()));
    parsed("dest_path", path.and_then(|t| t.parse::<DeployPath>().err()));
}

/// The commit in the body of a rollback.
///
/// # Errors
/// [`Error::InvalidFields`].
pub(super) fn commit(body: &Value) -> Result<CommitId> {
    let Some(object) = body.as_object() else {
        return Err(Error::invalid("body", "must be a JSON object"));
    };
    let mut problems = Problems::default();
    let parse = |text: &str| text.parse().map_err(|_| "must be the whole id of a commit".to_owned());
    let commit = text(object, "commit").and_then(|t| t.map(parse).transpose());
    problems.must("commit".into(), commit).ok_or(Error::InvalidFields(problems.0))
}

/// What belongs to `"strategy": "releases"`.
const OF_RELEASES: [&str; 5] = ["keep", "shared", "build", "activate", "health"];

/// With `"strategy": "releases"`: how, as agents read it. Otherwise nobody would heed that.
fn releases(object: &Map<String, Value>, over_ssh: bool, problems: &mut Problems) -> Option<Releases> {
    match problems.take("strategy".into(), text(object, "strategy")) {
        Some("releases") => {}
        None | Some("in_place") => {
            // Over SSH they are refused for good.
            for name in OF_RELEASES.into_iter().filter(|name| !over_ssh && asks(object, name)) {
                problems.add(name, "is heeded only with \"strategy\": \"releases\"");
            }
            return None;
        }
        Some(_) => {
            problems.add("strategy", "must be in_place or releases");
            return None;
        }
    }
    let given = OF_RELEASES.into_iter().filter_map(|name| Some((name.to_owned(), object.get(name)?.clone())));
    let given: Map<String, Value> = given.filter(|(_, value)| !value.is_null()).collect();
    match serde_path_to_error::deserialize::<_, Releases>(Value::Object(given)) {
        Ok(releases) => match releases.check() {
            Ok(()) => Some(releases),
            Err(bad) => {
                problems.add(bad.what, bad.why);
                None
            }
        },
        Err(error) => {
            problems.add(error.path().to_string(), error.inner().to_string());
            None
        }
    }
}
