//! What approvers agree to: one statement of everything that will happen, whose exact bytes travel in the message.
//!
//! ```json
//! {"kind": "command", "task_id": "…", "requester": "alice", "requested_at": 1788996000,
//!  "not_after": 1789000000, "agents": ["0a…", "1b…"],
//!  "message": {"command": "systemctl restart app", "timeout": 30, "user": "deploy"}}
//! ```
//! `message` holds every field of the message but its claims, its `task_id` and the approval itself, so that a field
//! that a later version adds is compared too. An approver signs the bytes with an SSH key (`ssh-keygen -Y sign -n
//! signet-approval`); an agent that lists approvers believes those signatures and not the controller. One statement
//! starts at most once on a host, known by its digest.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::deploy::Deploy;
use crate::ids::{AgentId, TaskId};
use crate::limits::STATEMENT_AGENTS_MAX;
use crate::messages::{Command, base64_bytes};
use crate::strict::without_duplicates;

/// The namespace of an approval's SSH signature (OpenSSH's PROTOCOL.sshsig): a signature for another purpose is none.
pub const NAMESPACE: &str = "signet-approval";

/// Fields of a message that are not part of what is agreed to: the claims of one of possibly several messages, what
/// stands beside `message` in the statement, and the approval itself.
const NOT_AGREED: [&str; 7] = ["iss", "aud", "iat", "exp", "jti", "task_id", "approval"];

/// A message that people can agree to.
pub trait Agreeable: Serialize {
    /// Which kind it is.
    const KIND: Kind;
    /// The task or job it belongs to.
    fn task_id(&self) -> &TaskId;
    /// The hosts that may do it.
    fn aud(&self) -> &[AgentId];
    /// When it was issued, whole seconds since 1970.
    fn iat(&self) -> i64;
    /// The last second in which it may start.
    fn exp(&self) -> i64;
    /// What people agreed to, as it came.
    fn approval(&self) -> Option<&Approval>;
    /// Takes out of its fields what differs between messages that mean the same.
    fn simplify(_fields: &mut Map<String, Value>) {}
}

impl Agreeable for Command {
    const KIND: Kind = Kind::Command;

    fn task_id(&self) -> &TaskId {
        &self.task_id
    }

    fn aud(&self) -> &[AgentId] {
        &self.aud
    }

    fn iat(&self) -> i64 {
        self.iat
    }

    fn exp(&self) -> i64 {
        self.exp
    }

    fn approval(&self) -> Option<&Approval> {
        self.approval.as_ref()
    }
}

/// A statement about a deployment has no `phase`, and of a credential everything but the secret, which is sealed anew
/// for each host.
impl Agreeable for Deploy {
    const KIND: Kind = Kind::Deploy;

    fn task_id(&self) -> &TaskId {
        &self.task_id
    }

    fn aud(&self) -> &[AgentId] {
        &self.aud
    }

    fn iat(&self) -> i64 {
        self.iat
    }

    fn exp(&self) -> i64 {
        self.exp
    }

    fn approval(&self) -> Option<&Approval> {
        self.approval.as_ref()
    }

    fn simplify(fields: &mut Map<String, Value>) {
        fields.remove("phase");
        if let Some(Value::Object(credential)) = fields.get_mut("credential") {
            credential.insert("sealed".to_owned(), Value::Bool(true));
        }
    }
}

/// Which kind of message a statement is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A command.
    Command,
    /// A git deployment.
    Deploy,
}

/// What approvers agree to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// Which kind of message.
    pub kind: Kind,
    /// The task or job.
    pub task_id: TaskId,
    /// Who asked for it; can't approve it.
    pub requester: String,
    /// When it was asked for, since 1970: a host counts only what was asked for after its log began.
    pub requested_at: i64,
    /// The last second in which it may start, since 1970.
    pub not_after: i64,
    /// Every agent that may run it, sorted, at most [`STATEMENT_AGENTS_MAX`].
    pub agents: Vec<AgentId>,
    /// The message's fields without its claims.
    pub message: Map<String, Value>,
}

/// A statement's SHA-256 in lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StatementDigest(String);

impl StatementDigest {
    /// Of these exact bytes.
    #[must_use]
    pub fn of(statement: &[u8]) -> Self {
        Self(hex::encode(digest(&SHA256, statement)))
    }

    /// 64 hex digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StatementDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The approval that a message carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// The statement's exact bytes, in base64.
    #[serde(with = "base64_bytes")]
    pub statement: Vec<u8>,
    /// Names of everybody who agreed, with a key or without, by the controller's word.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvers: Vec<String>,
    /// Armored SSH signatures over them; approvals without a key are not here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signatures: Vec<String>,
}

/// Why a statement is none, or not one for this message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAgreed {
    /// It can't be read, or breaks a rule of its form.
    #[error("the approved statement can't be read: {0}")]
    Malformed(String),
    /// The message says something else.
    #[error("the message differs from what was approved: {0}")]
    Differs(String),
    /// It is for other hosts.
    #[error("this host is not among those that the approval names")]
    OtherHost,
}

impl Statement {
    /// The statement for a command. It was asked for when its task was made, or if the task's id doesn't say that, when
    /// the message was issued.
    ///
    /// # Errors
    /// [`NotAgreed::Malformed`] with too many agents, or none.
    pub fn of_command(
        command: &Command,
        requester: &str,
        not_after: i64,
        agents: Vec<AgentId>,
    ) -> Result<Self, NotAgreed> {
        Self::of(command, requester, not_after, agents)
    }

    /// The statement for a deployment, likewise.
    ///
    /// # Errors
    /// [`NotAgreed::Malformed`] with too many agents, or none.
    pub fn of_deploy(
        deploy: &Deploy,
        requester: &str,
        not_after: i64,
        agents: Vec<AgentId>,
    ) -> Result<Self, NotAgreed> {
        Self::of(deploy, requester, not_after, agents)
    }

    fn of<M: Agreeable>(
        message: &M,
        requester: &str,
        not_after: i64,
        mut agents: Vec<AgentId>,
    ) -> Result<Self, NotAgreed> {
        agents.sort();
        agents.dedup();
        let statement = Self {
            kind: M::KIND,
            task_id: message.task_id().clone(),
            requester: requester.to_owned(),
            requested_at: message.task_id().seconds().unwrap_or(message.iat()),
            not_after,
            agents,
            message: agreed_fields(message)?,
        };
        statement.in_form()?;
        Ok(statement)
    }

    /// The bytes that are signed and sent.
    ///
    /// # Errors
    /// The serialiser's.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// Reads a statement; no key may be there twice, at any depth.
    ///
    /// # Errors
    /// [`NotAgreed::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, NotAgreed> {
        let bad = |e: serde_json::Error| NotAgreed::Malformed(e.to_string());
        without_duplicates(bytes).map_err(bad)?;
        let statement: Self = serde_json::from_slice(bytes).map_err(bad)?;
        statement.in_form()?;
        Ok(statement)
    }

    fn in_form(&self) -> Result<(), NotAgreed> {
        let malformed = |why: &str| Err(NotAgreed::Malformed(why.to_owned()));
        if self.agents.is_empty() || self.agents.len() > STATEMENT_AGENTS_MAX {
            return malformed("it must name 1 to 5,000 agents");
        }
        if !self.agents.is_sorted_by(|a, b| a < b) {
            return malformed("its agents must be sorted, each once");
        }
        if self.requester.is_empty() {
            return malformed("it names no requester");
        }
        Ok(())
    }

    /// Whether this is what approvers agreed to for `message` on `host`: every field is compared.
    ///
    /// # Errors
    /// [`NotAgreed::Differs`] naming the first field that differs, or [`NotAgreed::OtherHost`].
    pub fn covers<M: Agreeable>(&self, message: &M, host: &AgentId) -> Result<(), NotAgreed> {
        let differs = |field: &str| Err(NotAgreed::Differs(field.to_owned()));
        if self.kind != M::KIND {
            return differs("kind");
        }
        if &self.task_id != message.task_id() {
            return differs("task_id");
        }
        if message.exp() > self.not_after {
            return differs("exp is later than not_after");
        }
        let fields = agreed_fields(message)?;
        let names = fields.keys().chain(self.message.keys());
        if let Some(name) = names.into_iter().find(|name| fields.get(*name) != self.message.get(*name)) {
            return differs(name);
        }
        if self.agents.binary_search(host).is_err() {
            return Err(NotAgreed::OtherHost);
        }
        if message.aud().iter().any(|agent| self.agents.binary_search(agent).is_err()) {
            return differs("aud names a host that was not approved");
        }
        Ok(())
    }
}

fn agreed_fields<M: Agreeable>(message: &M) -> Result<Map<String, Value>, NotAgreed> {
    match serde_json::to_value(message) {
        Ok(Value::Object(mut fields)) => {
            for name in NOT_AGREED {
                fields.remove(name);
            }
            M::simplify(&mut fields);
            Ok(fields)
        }
        Ok(_) => Err(NotAgreed::Malformed("the message is no object".into())),
        Err(e) => Err(NotAgreed::Malformed(e.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const A: &str = "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a";
    const B: &str = "1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b";

    fn command(change: Value) -> Command {
        let mut body = json!({
            "iss": "controller", "aud": [A], "iat": 1, "exp": 100, "jti": "0190d7a0-0000-7000-8000-000000000001",
            "task_id": "0190d7a0-0000-7000-8000-00000000000a", "command": "uptime", "timeout": 30, "user": "deploy"
        });
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        serde_json::from_value(body).unwrap()
    }

    fn statement() -> Statement {
        let agents = vec![B.parse().unwrap(), A.parse().unwrap()];
        Statement::of_command(&command(json!({})), "alice", 100, agents).unwrap()
    }

    #[test]
    fn a_statement_covers_its_message_and_survives_its_bytes() {
        let read = Statement::parse(&statement().to_bytes().unwrap()).unwrap();
        assert_eq!(read, statement());
        read.covers(&command(json!({})), &A.parse().unwrap()).unwrap();
        // Another batch of the same task: other claims, same statement.
        let other = json!({"jti": "0190d7a0-0000-7000-8000-000000000002", "aud": [B], "iat": 7, "exp": 90});
        read.covers(&command(other), &B.parse().unwrap()).unwrap();
    }

    #[test]
    fn every_other_field_that_differs_is_found() {
        let changes = [
            json!({"command": "reboot"}),
            json!({"timeout": 31}),
            json!({"user": "root"}),
            json!({"task_id": "0190d7a0-0000-7000-8000-00000000000b"}),
            json!({"exp": 101}),
            json!({"env": {"LD_PRELOAD": "x"}}),
            json!({"cwd": "/"}),
            json!({"stdin": "x"}),
            json!({"output_limit": 1}),
            json!({"detached": true}),
            json!({"aud": [A, "2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c"]}),
        ];
        for change in changes {
            let found = statement().covers(&command(change.clone()), &A.parse().unwrap());
            assert!(matches!(found, Err(NotAgreed::Differs(_))), "{change}: {found:?}");
        }
        let other = "2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c".parse().unwrap();
        assert_eq!(statement().covers(&command(json!({})), &other), Err(NotAgreed::OtherHost));
    }

    fn deploy(change: Value) -> Deploy {
        let mut body = json!({
            "iss": "controller", "aud": [A], "iat": 1, "exp": 100, "jti": "0190d7a0-0000-7000-8000-000000000001",
            "task_id": "0190d7a0-0000-7000-8000-00000000000a", "phase": "deploy", "path": "/srv/app", "timeout": 30,
            "repository": "https://example.com/app", "commit": "c".repeat(40), "protocols": ["https"],
            "credential": {"kind": "https_token", "sealed": {"enc": "AA==", "ct": "AA=="}}
        });
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        serde_json::from_value(body).unwrap()
    }

    #[test]
    fn a_deployment_is_agreed_to_whatever_its_secret_is_sealed_to() {
        let host: AgentId = A.parse().unwrap();
        let agents = vec![host.clone(), B.parse().unwrap()];
        let statement = Statement::of_deploy(&deploy(json!({})), "alice", 100, agents).unwrap();
        let text = String::from_utf8(statement.to_bytes().unwrap()).unwrap();
        assert!(text.contains(r#""sealed":true"#) && !text.contains("phase"), "{text}");
        let sealed_again = json!({"credential": {"kind": "https_token", "sealed": {"enc": "BB==", "ct": "BB=="}},
            "aud": [B], "phase": "preflight"});
        statement.covers(&deploy(sealed_again), &B.parse().unwrap()).unwrap();
        for change in [
            json!({"commit": "d".repeat(40)}),
            json!({"path": "/srv/other"}),
            json!({"force": true}),
            json!({"strategy": {"releases": {}}}),
            json!({"repository": "https://example.com/other"}),
            json!({"credential": null}),
            json!({"credential": {"kind": "https_token", "username": "x", "sealed": {"enc": "", "ct": ""}}}),
        ] {
            let found = statement.covers(&deploy(change.clone()), &host);
            assert!(matches!(found, Err(NotAgreed::Differs(_))), "{change}: {found:?}");
        }
        assert_eq!(statement.covers(&command(json!({})), &host), Err(NotAgreed::Differs("kind".into())));
    }

    #[test]
    fn statements_out_of_form_are_refused() {
        let good = String::from_utf8(statement().to_bytes().unwrap()).unwrap();
        let bad = [
            good.replace(r#""timeout":30"#, r#""timeout":30,"timeout":31"#),
            good.replace(r#""kind":"command""#, r#""kind":"command","extra":1"#),
            good.replace(&format!(r#""{A}","{B}""#), &format!(r#""{B}","{A}""#)),
            good.replace(&format!(r#""{A}","{B}""#), &format!(r#""{A}","{A}""#)),
            good.replace(&format!(r#""{A}","{B}""#), ""),
            good.replace("alice", ""),
        ];
        for text in bad {
            assert_ne!(text, good);
            assert!(matches!(Statement::parse(text.as_bytes()), Err(NotAgreed::Malformed(_))), "{text}");
        }
    }
}
