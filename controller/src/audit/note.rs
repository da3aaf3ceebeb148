//! An entry: made of what was done, written beside it.

use serde::Serialize;
use serde_json::{Map, Value, json};
use signet_common::time::Micros;
use uuid::Uuid;

use super::author::Author;
use super::store;
use crate::limits::{AUDIT_TEXT_CHARS_MAX, AUDIT_VALUE_BYTES_MAX};
use crate::store::{StoreError, Tx};

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is explained by its text below, which docs/operations.md lists")]
pub enum Action {
    CommandRun,
    TaskCancel,
    JobRun,
    JobRetry,
    JobRollback,
    JobCancel,
    JobHostKeyPin,
    /// An administrator lets a host show another key.
    JobHostKeyForget,
    RepositoryAdd,
    RepositoryChange,
    RepositoryRemove,
    ApprovalGive,
    ApprovalRefuse,
    ApprovalRuleMake,
    ApprovalRuleDelete,
    ApproverKeyAdd,
    ApproverKeyDelete,
    DispatchPause,
    DispatchResume,
    ServerAdd,
    ServerChange,
    ServerDelete,
    HostKeyPut,
    AgentEnrol,
    AgentClaim,
    AgentAccept,
    AgentRevoke,
    AgentLeave,
    AgentSetAside,
    AgentGap,
    JoinTokenMake,
    JoinTokenRevoke,
    FleetKeyRotate,
    FleetKeyRevoke,
    AccountMake,
    AccountChange,
    AccountDelete,
    AccountPassword,
    SessionBegin,
    SessionRenew,
    SessionReuse,
    SessionEnd,
    TicketMake,
    TokenMake,
    TokenDelete,
    RequestRefused,
    AuditRetain,
}

impl Action {
    /// Every action.
    pub const ALL: &'static [Self] = &[
        Self::CommandRun,
        Self::TaskCancel,
        Self::JobRun,
        Self::JobRetry,
        Self::JobRollback,
        Self::JobCancel,
        Self::JobHostKeyPin,
        Self::JobHostKeyForget,
        Self::RepositoryAdd,
        Self::RepositoryChange,
        Self::RepositoryRemove,
        Self::ApprovalGive,
        Self::ApprovalRefuse,
        Self::ApprovalRuleMake,
        Self::ApprovalRuleDelete,
        Self::ApproverKeyAdd,
        Self::ApproverKeyDelete,
        Self::DispatchPause,
        Self::DispatchResume,
        Self::ServerAdd,
        Self::ServerChange,
        Self::ServerDelete,
        Self::HostKeyPut,
        Self::AgentEnrol,
        Self::AgentClaim,
        Self::AgentAccept,
        Self::AgentRevoke,
        Self::AgentLeave,
        Self::AgentSetAside,
        Self::AgentGap,
        Self::JoinTokenMake,
        Self::JoinTokenRevoke,
        Self::FleetKeyRotate,
        Self::FleetKeyRevoke,
        Self::AccountMake,
        Self::AccountChange,
        Self::AccountDelete,
        Self::AccountPassword,
        Self::SessionBegin,
        Self::SessionRenew,
        Self::SessionReuse,
        Self::SessionEnd,
        Self::TicketMake,
        Self::TokenMake,
        Self::TokenDelete,
        Self::RequestRefused,
        Self::AuditRetain,
    ];

    /// As in an entry.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CommandRun => "command.run",
            Self::TaskCancel => "task.cancel",
            Self::JobRun => "job.run",
            Self::JobRetry => "job.retry",
            Self::JobRollback => "job.rollback",
            Self::JobCancel => "job.cancel",
            Self::JobHostKeyPin => "job.host-key-pin",
            Self::JobHostKeyForget => "job.host-key-forget",
            Self::RepositoryAdd => "repository.add",
            Self::RepositoryChange => "repository.change",
            Self::RepositoryRemove => "repository.remove",
            Self::ApprovalGive => "approval.give",
            Self::ApprovalRefuse => "approval.refuse",
            Self::ApprovalRuleMake => "approval-rule.make",
            Self::ApprovalRuleDelete => "approval-rule.delete",
            Self::ApproverKeyAdd => "approver-key.add",
            Self::ApproverKeyDelete => "approver-key.delete",
            Self::DispatchPause => "dispatch.pause",
            Self::DispatchResume => "dispatch.resume",
            Self::ServerAdd => "server.add",
            Self::ServerChange => "server.change",
            Self::ServerDelete => "server.delete",
            Self::HostKeyPut => "host-key.put",
            Self::AgentEnrol => "agent.enrol",
            Self::AgentClaim => "agent.claim",
            Self::AgentAccept => "agent.accept",
            Self::AgentRevoke => "agent.revoke",
            Self::AgentLeave => "agent.leave",
            Self::AgentSetAside => "agent.set-aside",
            Self::AgentGap => "agent.gap",
            Self::JoinTokenMake => "join-token.make",
            Self::JoinTokenRevoke => "join-token.revoke",
            Self::FleetKeyRotate => "fleet-key.rotate",
            Self::FleetKeyRevoke => "fleet-key.revoke",
            Self::AccountMake => "account.make",
            Self::AccountChange => "account.change",
            Self::AccountDelete => "account.delete",
            Self::AccountPassword => "account.password",
            Self::SessionBegin => "session.begin",
            Self::SessionRenew => "session.renew",
            Self::SessionReuse => "session.reuse",
            Self::SessionEnd => "session.end",
            Self::TicketMake => "ticket.make",
            Self::TokenMake => "token.make",
            Self::TokenDelete => "token.delete",
            Self::RequestRefused => "request.refused",
            Self::AuditRetain => signet_common::trail::RETAINED,
        }
    }
}

/// What something was done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject<'a> {
    /// What was done.
    pub action: Action,
    /// To what: a task's id, a hostname, an account's name, a method and path.
    pub object: &'a str,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    /// It is done.
    Success,
    /// Whoever asked may not, or is not who they say.
    Refused,
    /// What was asked for made no sense, or contradicted what is there.
    Failed,
}

impl Outcome {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// An entry that is to be written.
#[derive(Debug, Clone)]
pub struct Note<'a> {
    subject: Subject<'a>,
    old: Option<Value>,
    new: Option<Value>,
}

impl<'a> Note<'a> {
    /// Something that was done to this.
    #[must_use]
    pub fn of(action: Action, object: &'a str) -> Self {
        Self { subject: Subject { action, object }, old: None, new: None }
    }

    /// What it was before. Never a secret.
    #[must_use]
    pub fn old(mut self, value: Value) -> Self {
        self.old = Some(bounded(value));
        self
    }

    /// What it is now. Never a secret.
    #[must_use]
    pub fn new(mut self, value: Value) -> Self {
        self.new = Some(bounded(value));
        self
    }
}

/// A row of the trail.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) id: Uuid,
    pub(super) at: Micros,
    pub(super) who: String,
    pub(super) action: &'static str,
    pub(super) object: String,
    pub(super) result: Outcome,
    /// The entry's exact text.
    pub(super) entry: String,
}

/// How a refused request ended.
#[derive(Debug, Clone)]
pub(super) struct Ended<'a> {
    pub(super) result: Outcome,
    pub(super) status: u16,
    pub(super) why: &'a str,
    pub(super) count: u64,
}

impl Row {
    pub(super) fn done(by: &Author, note: &Note<'_>, at: Micros) -> Self {
        Self::new(by, note.subject, Outcome::Success, at, |entry| {
            let values = [("old", &note.old), ("new", &note.new)];
            entry.extend(values.into_iter().filter_map(|(name, value)| Some((name.into(), value.clone()?))));
        })
    }

    pub(super) fn refused(by: &Author, subject: Subject<'_>, ended: &Ended<'_>, at: Micros) -> Self {
        Self::new(by, subject, ended.result, at, |entry| {
            entry.insert("status".into(), ended.status.into());
            entry.insert("details".into(), cut(ended.why).into());
            entry.insert("count".into(), ended.count.into());
        })
    }

    fn new(
        by: &Author,
        subject: Subject<'_>,
        result: Outcome,
        at: Micros,
        more: impl FnOnce(&mut Map<String, Value>),
    ) -> Self {
        let (id, object, action) = (Uuid::now_v7(), cut(subject.object), subject.action.as_str());
        let mut entry = Map::new();
        let mut put = |name: &str, value: Value| entry.insert(name.to_owned(), value);
        put("id", json!(id));
        put("at", at.rfc3339_exact().into());
        put("who", by.who.clone().into());
        for (name, value) in [("via", by.via.clone()), ("request", by.request.clone())] {
            value.map(|value| put(name, value.into()));
        }
        by.from.map(|ip| put("from", ip.to_string().into()));
        put("action", action.into());
        put("object", object.clone().into());
        put("result", result.as_str().into());
        more(&mut entry);
        Self { id, at, who: by.who.clone(), action, object, result, entry: Value::Object(entry).to_string() }
    }
}

/// A text for people, cut where it gets too long.
pub(super) fn cut(text: &str) -> String {
    match text.char_indices().nth(AUDIT_TEXT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A value that is too long stands there by its digest, so that it can still be compared.
fn bounded(value: Value) -> Value {
    let text = value.to_string();
    if text.len() <= AUDIT_VALUE_BYTES_MAX {
        return value;
    }
    let digest = hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes()));
    json!({ "bytes": text.len(), "sha256": digest })
}

/// Writes down what this transaction does.
///
/// # Errors
/// When the database fails.
pub async fn note(tx: &mut Tx, by: &Author, note: Note<'_>) -> Result<(), StoreError> {
    if cfg!(feature = "without-audit") {
        return Ok(());
    }
    store::insert(tx, &[Row::done(by, &note, Micros::now())]).await
}
