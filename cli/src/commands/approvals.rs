//! `signet approvals`, `approve` and `refuse`: what waits for others' word, and that word.

use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};
use signet_common::deploy::Strategy;
use signet_common::statement::{Kind, Statement, StatementDigest};
use signet_common::time::Micros;
use ureq::http::Method;

use super::job;
use crate::api::Approval;
use crate::client::{parsed, part};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::ssh;
use crate::table::{self, looking, plain};
use crate::term::{Look, state_look};
use crate::text::one_line;

/// List what waits for approval
#[derive(Debug, Args)]
pub(crate) struct Approvals {
    /// Also what was decided or has ended
    #[arg(long)]
    all: bool,
}

/// Read what a task will do, and approve it
///
/// Everything that will happen is shown; the approval is for exactly that. It is signed with an SSH key that is registered
/// with `signet approver-keys add`, so that the hosts themselves can check it; ssh-agent works too. Who asked for a task
/// can't approve it.
#[derive(Debug, Args)]
pub(crate) struct Approve {
    /// The task's id
    task: String,
    /// The SSH key to sign with; its public half if the private one is in ssh-agent [default: the first of ~/.ssh]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Approve without a signature: hosts that list approvers of their own don't count it
    #[arg(long, conflicts_with = "key")]
    no_sign: bool,
    /// Don't ask
    #[arg(long, short)]
    yes: bool,
}

/// Refuse a task: nothing of it ever runs
#[derive(Debug, Args)]
pub(crate) struct Refuse {
    /// The task's id
    task: String,
    /// Why; everybody sees it
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// What is read of a request before it is approved.
#[derive(Debug, Deserialize)]
struct Detail {
    #[serde(flatten)]
    approval: Approval,
    digest: String,
    hosts: Vec<Host>,
}

#[derive(Debug, Deserialize)]
struct Host {
    hostname: String,
    agent_id: Option<String>,
}

/// Only who may approve gets it.
#[derive(Debug, Deserialize)]
struct Exact {
    #[serde(with = "signet_common::messages::base64_bytes")]
    statement: Vec<u8>,
}

impl Approvals {
    pub(crate) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let query = if self.all { "" } else { "?state=awaiting" };
        let all = context.all(&format!("/api/approvals{query}"))?;
        if context.json() {
            return context.print_json(&Value::Array(all));
        }
        let mut rows = Vec::new();
        for one in &all {
            let one: Approval = parsed(one)?;
            let who: Vec<&str> = one.approvals.iter().map(|given| given.name.as_str()).collect();
            rows.push(vec![
                plain(one.task_id),
                plain(one.kind),
                looking(state_look(&one.state), one.state),
                plain(one.requester),
                plain(format!("{} of {}", who.len(), one.needed)),
                plain(who.join(", ")),
                plain(one.agents.to_string()),
                plain(one.not_after),
            ]);
        }
        table::print(
            context.term,
            &["TASK", "KIND", "STATE", "ASKED BY", "APPROVALS", "BY", "HOSTS", "UNTIL"],
            rows,
        )?;
        Ok(Exit::Success)
    }
}

impl Approve {
    pub(crate) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let path = format!("/api/approvals/{}", part(&self.task));
        let answer = context.client.get(&path)?;
        let detail: Detail = parsed(&answer)?;
        if detail.approval.state != "awaiting" {
            return Err(Failure::Usage(format!("{}: this task is {}", self.task, detail.approval.state)));
        }
        if answer.get("statement").is_none() {
            return Err(Failure::Usage("this account may not approve it".into()));
        }
        let exact: Exact = parsed(&answer)?;
        let statement = checked(&self.task, &detail, &exact.statement).map_err(Failure::Usage)?;
        let key = if self.no_sign { None } else { Some(ssh::key(self.key)?) };
        for line in readable(&statement, &detail.hosts) {
            context.term.say(Look::Plain, &line);
        }
        if !self.yes && !agreed()? {
            context.term.say(Look::Plain, "not approved");
            return Ok(Exit::SomeFailed);
        }
        let signature = key.map(|key| ssh::sign(&key, &exact.statement)).transpose()?;
        let body = json!({ "digest": detail.digest, "signature": signature });
        let answer = context.client.send(&Method::POST, &format!("{path}/approve"), &[], Some(&body))?;
        if context.json() {
            return context.print_json(&answer);
        }
        let approval: Approval = parsed(&answer)?;
        let (given, needed) = (approval.approvals.len(), approval.needed);
        match approval.state.as_str() {
            "awaiting" => writeln!(io::stdout(), "{given} of {needed} approvals: it waits for more")?,
            state => {
                let follow = match statement.kind {
                    Kind::Command => format!("signet task --follow {}", self.task),
                    // A request names its task, and not the job.
                    Kind::Deploy => "`signet job list` has its job".into(),
                };
                writeln!(io::stdout(), "{state}: it runs now, {follow}")?;
            }
        }
        Ok(Exit::Success)
    }
}

impl Refuse {
    pub(crate) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let path = format!("/api/approvals/{}/refuse", part(&self.task));
        let body = json!({ "reason": self.reason });
        let answer = context.client.send(&Method::POST, &path, &[], Some(&body))?;
        if context.json() {
            return context.print_json(&answer);
        }
        writeln!(io::stdout(), "{} is refused", self.task)?;
        Ok(Exit::Success)
    }
}

/// The statement that these bytes are, if it is what the controller says it is.
fn checked(task: &str, detail: &Detail, bytes: &[u8]) -> Result<Statement, String> {
    if StatementDigest::of(bytes).as_str() != detail.digest {
        return Err("the controller names another digest than that of its statement: don't trust it".into());
    }
    let statement = Statement::parse(bytes).map_err(|e| e.to_string())?;
    if statement.task_id.to_string() != task {
        return Err("the statement is for another task: don't trust this controller".into());
    }
    Ok(statement)
}

/// Everything that is agreed to, from the very bytes that are signed; only the hosts' names are the controller's word.
/// Texts of several lines are indented, so that none of them looks like one of these lines.
fn readable(statement: &Statement, hosts: &[Host]) -> Vec<String> {
    let mut lines = vec![
        format!("task      {}", statement.task_id),
        format!("asked by  {}", one_line(&statement.requester, usize::MAX)),
        format!("asked at  {}", Micros::from_seconds(statement.requested_at).rfc3339()),
        format!("until     {}", Micros::from_seconds(statement.not_after).rfc3339()),
    ];
    let named = |id: &signet_common::AgentId| {
        let host = hosts.iter().find(|host| host.agent_id.as_deref() == Some(id.as_str()));
        let name = host.map_or_else(|| "unknown".into(), |host| one_line(&host.hostname, usize::MAX));
        format!("  {id}  {name}")
    };
    // The ids are what is signed: compare them with those that you know. All of them, because any may be the wrong one.
    lines.push(format!(
        "hosts     {}, by agent id; the names are the controller's word:",
        statement.agents.len()
    ));
    lines.extend(statement.agents.iter().map(named));
    for (name, value) in &statement.message {
        match (value.as_str(), words(name, value)) {
            (_, Some(words)) => words.iter().for_each(|(name, text)| lines.extend(labelled(name, text))),
            (Some(text), None) => lines.extend(labelled(name, text)),
            (None, None) => lines.extend(labelled(name, &value.to_string())),
        }
    }
    lines
}

/// A label and its text, with a blank between them.
fn labelled(name: &str, text: &str) -> Vec<String> {
    if !text.contains('\n') {
        return vec![format!("{name:<9} {}", one_line(text, usize::MAX))];
    }
    let lines = text.split('\n').map(|line| format!("  | {}", one_line(line, usize::MAX)));
    std::iter::once(format!("{name}:")).chain(lines).collect()
}

/// A deployment's strategy in words. What no host would understand stays as it is: nothing of it is left out.
fn words(name: &str, value: &Value) -> Option<Vec<(&'static str, String)>> {
    if name != "strategy" {
        return None;
    }
    let releases = match Strategy::deserialize(value).ok()? {
        Strategy::InPlace => Value::Null,
        Strategy::Releases(releases) => serde_json::to_value(releases).ok()?,
    };
    Some(job::strategy(&releases))
}

/// Asks the person at the terminal.
fn agreed() -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::Usage("nobody can be asked here: give --yes".into()));
    }
    write!(io::stderr(), "approve this? [y/N] ")?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: &str = "0190d7a0-0000-7000-8000-00000000000a";

    fn statement() -> Statement {
        let a = "0a".repeat(20);
        let text = json!({
            "kind": "command", "task_id": TASK, "requester": "alice", "requested_at": 1_788_996_400, "not_after": 1_789_000_000,
            "agents": [a, "1b".repeat(20)],
            "message": {"command": "ls\nhosts     1: harmless\u{1b}[2J", "timeout": 30},
        });
        Statement::parse(text.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_statement_is_readable_and_can_not_be_faked() {
        let hosts = [Host { hostname: "web1".into(), agent_id: Some("0a".repeat(20)) }];
        let lines = readable(&statement(), &hosts);
        assert!(lines.contains(&format!("  {}  web1", "0a".repeat(20))), "{lines:?}");
        assert!(lines.contains(&format!("  {}  unknown", "1b".repeat(20))), "{lines:?}");
        assert!(lines.contains(&"timeout   30".to_owned()), "{lines:?}");
        assert!(lines.iter().any(|line| line.starts_with("  | hosts     1: harmless")), "{lines:?}");
        assert!(!lines.iter().any(|line| line.contains('\u{1b}')), "{lines:?}");
    }

    #[test]
    fn a_deployment_is_told_in_words() {
        let releases = json!({ "keep": 5, "build": ["make", "a\nb"], "shared": ["logs"],
            "health": { "probe": { "command": "true" }, "timeout": 1, "attempts": 2 } });
        let text = json!({
            "kind": "deploy", "task_id": TASK, "requester": "alice", "requested_at": 1_788_996_400,
            "not_after": 1_789_000_000, "agents": ["0a".repeat(20)],
            "message": { "repository": "file:///srv/git/a", "strategy": { "releases": releases } },
        });
        let statement = Statement::parse(text.to_string().as_bytes()).unwrap();
        let lines = readable(&statement, &[]);
        for line in [
            "repository file:///srv/git/a",
            "strategy  releases, keep 5",
            "shared    logs",
            "build     make",
            "build:",
            "  | b",
            "health    true (2 times at most, 1 s each, 0 s between)",
        ] {
            assert!(lines.iter().any(|one| one == line), "{line}: {lines:?}");
        }
        // What this program does not know is shown as it is.
        let unknown = json!({ "releases": { "keep": 5, "secretly": "rm -rf /" } });
        assert_eq!(words("strategy", &unknown), None);
        assert_eq!(words("strategy", &json!("in_place")), Some(vec![("strategy", "in place".to_owned())]));
    }

    #[test]
    fn a_statement_is_what_the_controller_says() {
        let bytes = statement().to_bytes().unwrap();
        let detail = |digest: &str| -> Detail {
            let approval = json!({
                "task_id": TASK, "state": "awaiting", "requester": "alice", "needed": 1, "agents": 2,
                "not_after": "x", "digest": digest, "hosts": [], "approvals": [],
            });
            serde_json::from_value(approval).unwrap()
        };
        let digest = StatementDigest::of(&bytes).to_string();
        assert_eq!(checked(TASK, &detail(&digest), &bytes), Ok(statement()));
        assert!(checked("another", &detail(&digest), &bytes).is_err());
        assert!(checked(TASK, &detail("other"), &bytes).is_err());
        let more = [bytes.as_slice(), b" "].concat();
        assert!(checked(TASK, &detail(&digest), &more).is_err());
    }
}
