//! What is shown of requests for approval.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Map, Value};
use signet_common::statement::Statement;
use signet_common::time::Micros;
use signet_common::{Hostname, TaskId};
use utoipa::ToSchema;

use super::model::State;
use super::service::Approvals;
use super::store::{self, Given, Request};
use crate::accounts::{Caller, within};
use crate::dispatch;
use crate::error::{Error, Result};
use crate::http::permissions::Need as Right;
use crate::limits::TARGETS_SHOWN_MAX;
use crate::store::Read;

/// Somebody who agreed.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct GivenView {
    /// The account's name.
    name: String,
    /// When.
    given_at: String,
    /// Whether hosts can check it: it carries an SSH signature.
    signed: bool,
}

/// A request for approval.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ApprovalView {
    /// The task that waits, or waited.
    #[schema(value_type = String)]
    task_id: TaskId,
    /// `command` or `deploy`
    #[schema(value_type = String)]
    kind: signet_common::statement::Kind,
    /// Where it stands.
    state: State,
    /// Who asked for it.
    requester: String,
    /// How many others must agree.
    needed: u32,
    /// How many agents may run it.
    agents: u64,
    /// SHA-256 of the statement in hex: what an approval is bound to.
    digest: String,
    /// Nothing of it starts after this; it waits until then.
    not_after: String,
    /// When it was asked for.
    created_at: String,
    /// Who agreed.
    approvals: Vec<GivenView>,
    /// Whose word was the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    decided_by: Option<String>,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    decided_at: Option<String>,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl ApprovalView {
    /// Where it stands.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }
}

/// A host of a request.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct HostView {
    #[schema(value_type = String)]
    hostname: Hostname,
    /// As the statement names it; null for a host without an agent, where nothing will run.
    agent_id: Option<String>,
}

/// A request with everything that is agreed to.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct ApprovalDetail {
    #[serde(flatten)]
    approval: ApprovalView,
    /// The hosts by name, at most 10,000.
    hosts: Vec<HostView>,
    /// The fields of what runs. Values of `env` and `stdin` are null but for who may approve it now.
    #[schema(value_type = Object)]
    message: Map<String, Value>,
    /// The exact bytes that are agreed to, in base64; only while it waits, and only for who may approve it.
    #[serde(skip_serializing_if = "Option::is_none")]
    statement: Option<String>,
}

fn view(request: Request, held: bool, given: &[Given]) -> ApprovalView {
    let task = request.task_id.to_string();
    let given = given.iter().filter(|g| g.task_id == task);
    ApprovalView {
        kind: request.kind,
        state: request.state.shown(held),
        requester: request.requester,
        needed: request.needed,
        agents: request.agents,
        digest: request.digest,
        not_after: Micros::from_seconds(request.not_after).rfc3339(),
        created_at: request.created_at.rfc3339(),
        approvals: given
            .map(|g| GivenView {
                name: g.person.clone(),
                given_at: Micros(g.given_at).rfc3339(),
                signed: g.signature.is_some(),
            })
            .collect(),
        decided_by: request.decided_by,
        decided_at: request.decided_at.map(Micros::rfc3339),
        reason: request.reason,
        task_id: request.task_id,
    }
}

impl Approvals {
    async fn views(&self, mut read: impl Read, requests: Vec<Request>) -> Result<Vec<ApprovalView>> {
        let tasks: Vec<TaskId> = requests.iter().map(|r| r.task_id.clone()).collect();
        let held = dispatch::held_among(&mut read, &tasks).await?;
        let given = store::given(read, &tasks).await?;
        let shown = |r: Request| {
            let held = held.contains(&r.task_id);
            view(r, held, &given)
        };
        Ok(requests.into_iter().map(shown).collect())
    }

    /// The request for a task, if it needed approval.
    ///
    /// # Errors
    /// The database's.
    pub async fn of(&self, mut read: impl Read, task: &TaskId) -> Result<Option<ApprovalView>> {
        let request = store::request(&mut read, task).await?;
        Ok(self.views(read, request.into_iter().collect()).await?.pop())
    }

    /// A page of requests, newest first, and where the next one begins. One that is narrowed to a state may be shorter
    /// than asked, and even empty.
    pub(super) async fn page(
        &self,
        state: Option<State>,
        from: &(i64, String),
        limit: usize,
    ) -> Result<(Vec<ApprovalView>, Option<(i64, String)>)> {
        // What ended undecided is stored as it was.
        let stored = state.map(|s| if s == State::Ended { State::Awaiting } else { s });
        // Those whose time has passed wait no more, and there may be many.
        let since = if state == Some(State::Awaiting) { Micros::now().seconds() } else { 0 };
        let mut requests = store::list(self.store(), stored, since, from, limit + 1).await?;
        let more = requests.len() > limit;
        requests.truncate(limit);
        let last = requests.last().map(|r| (r.created_at.0, r.task_id.to_string())).filter(|_| more);
        let mut views = self.views(self.store(), requests).await?;
        views.retain(|view| state.is_none_or(|state| view.state == state));
        Ok((views, last))
    }

    /// A request with everything that is agreed to, as far as the caller may know it.
    pub(super) async fn detail(&self, caller: &Caller, task: &TaskId) -> Result<ApprovalDetail> {
        let request = self.request(task).await?;
        let bytes = self.statement(task).await?;
        let statement = Statement::parse(&bytes).map_err(|e| Error::Internal(e.to_string()))?;
        let may = Right::Operate.allows(caller.role)
            && (caller.groups.is_none()
                || within(caller.groups.as_ref(), &self.groups_of(task).await?).is_ok());
        let approval = self.views(self.store(), vec![request]).await?.pop();
        let approval = approval.ok_or_else(|| Error::Internal("a request that is not shown".into()))?;
        let exact = may && approval.state == State::Awaiting;
        let mut message = statement.message;
        if !exact {
            hide(&mut message);
        }
        let targets = dispatch::targets(self.store(), task, 0, TARGETS_SHOWN_MAX).await?;
        let host = |t: crate::dispatch::Target| {
            let agent_id = t.agent_id.filter(|id| statement.agents.binary_search(id).is_ok());
            HostView { hostname: t.hostname, agent_id: agent_id.map(|id| id.to_string()) }
        };
        Ok(ApprovalDetail {
            approval,
            hosts: targets.into_iter().map(host).collect(),
            message,
            statement: exact.then(|| STANDARD.encode(&bytes)),
        })
    }
}

/// Values of `env` and `stdin` may be secrets.
pub(super) fn hide(message: &mut Map<String, Value>) {
    if let Some(stdin) = message.get_mut("stdin") {
        *stdin = Value::Null;
    }
    if let Some(Value::Object(env)) = message.get_mut("env") {
        env.values_mut().for_each(|value| *value = Value::Null);
    }
}
