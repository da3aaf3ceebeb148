//! The tables of rules, requests, approvals and approvers' keys. Nobody else reads them.

use signet_common::TaskId;
use signet_common::statement::Kind;
use signet_common::time::Micros;

use super::model::{Rule, RuleTarget, State};
use crate::limits::LIST_VALUES_MAX;
use crate::store::{Read, Store, StoreError, Tx, Value, corrupt, statements};

macro_rules! request {
    ($rest:literal) => {
        concat!(
            "SELECT task_id, kind, requester, needed, digest, agents, timeout, expires_in, not_after, state, \
            decided_by, decided_at, reason, created_at FROM approval_requests ",
            $rest
        )
    };
}
macro_rules! key {
    ($rest:literal) => {
        concat!("SELECT id, user_id, public_key, fingerprint, comment, created_at FROM approver_keys ", $rest)
    };
}

statements! {
    RULES = same("SELECT id, host_group, approvals, kinds, expires_in FROM approval_rules ORDER BY created_at, id");
    INSERT_RULE = same("INSERT INTO approval_rules (id, host_group, approvals, kinds, expires_in, made_by, created_at) \
            VALUES {rows:7}");
    DELETE_RULE = same("DELETE FROM approval_rules WHERE id = ?");

    INSERT_REQUEST = same("INSERT INTO approval_requests (task_id, kind, requester, needed, digest, sealed, agents, \
            timeout, expires_in, not_after, state, created_at) VALUES {rows:12}");
    REQUEST = same(request!("WHERE task_id = ?"));
    SEALED = same("SELECT sealed FROM approval_requests WHERE task_id = ?");
    LIST = same(request!("WHERE (created_at < ? OR (created_at = ? AND task_id < ?)) AND (? IS NULL OR state = ?) AND not_after >= ? \
            ORDER BY created_at DESC, task_id DESC LIMIT ?"));
    DECIDE = same("UPDATE approval_requests SET state = ?, decided_by = ?, decided_at = ?, reason = ?, sealed = ? \
            WHERE task_id = ?");
    DELETE_REQUESTS = same("DELETE FROM approval_requests WHERE task_id IN ({list})");

    GIVEN = same("SELECT task_id, person, user_id, key_id, signature, given_at FROM approvals WHERE task_id IN ({list}) \
            ORDER BY task_id, given_at, person");
    INSERT_APPROVAL = same("INSERT INTO approvals (task_id, person, user_id, key_id, signature, given_at) \
            VALUES {rows:6}");
    SIGN_APPROVAL = same("UPDATE approvals SET user_id = ?, key_id = ?, signature = ?, given_at = ? \
            WHERE task_id = ? AND person = ?");
    DELETE_APPROVALS = same("DELETE FROM approvals WHERE task_id IN ({list})");

    KEYS = same(key!("WHERE (? IS NULL OR user_id = ?) ORDER BY created_at, id LIMIT ?"));
    KEY_BY_FINGERPRINT = same(key!("WHERE fingerprint = ?"));
    KEYS_BY_ID = same(key!("WHERE id IN ({list})"));
    COUNT_KEYS = same("SELECT COUNT(*) AS number FROM approver_keys WHERE user_id = ?");
    INSERT_KEY = same("INSERT INTO approver_keys (id, user_id, public_key, fingerprint, comment, created_at) \
            VALUES {rows:6}");
    DELETE_KEY = same("DELETE FROM approver_keys WHERE id = ?");
}

#[derive(sqlx::FromRow)]
struct RuleRow {
    id: String,
    host_group: Option<String>,
    approvals: i64,
    kinds: String,
    expires_in: i64,
}

impl TryFrom<RuleRow> for Rule {
    type Error = StoreError;
    fn try_from(row: RuleRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id,
            target: row.host_group.map_or(RuleTarget::All, RuleTarget::Group),
            approvals: u32::try_from(row.approvals).map_err(corrupt)?,
            kinds: serde_json::from_str(&row.kinds).map_err(corrupt)?,
            expires_in: u32::try_from(row.expires_in).map_err(corrupt)?,
        })
    }
}

/// Every rule, oldest first.
pub(super) async fn rules(mut read: impl Read) -> Result<Vec<Rule>, StoreError> {
    let rows: Vec<RuleRow> = read.all(RULES.query()).await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

pub(super) async fn insert_rule(tx: &mut Tx, rule: &Rule, by: &str, now: Micros) -> Result<(), StoreError> {
    let group = match &rule.target {
        RuleTarget::All => None,
        RuleTarget::Group(group) => Some(group.as_str()),
    };
    let row: [Value; 7] = [
        rule.id.as_str().into(),
        group.into(),
        rule.approvals.into(),
        serde_json::to_string(&rule.kinds).map_err(corrupt)?.into(),
        rule.expires_in.into(),
        by.into(),
        now.into(),
    ];
    tx.run(INSERT_RULE.query().rows([row])).await.map(drop)
}

/// Deletes a rule; says whether there was one.
pub(super) async fn delete_rule(tx: &mut Tx, id: &str) -> Result<bool, StoreError> {
    Ok(tx.run(DELETE_RULE.bind(id)).await? > 0)
}

/// A request for approval, without its statement.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) task_id: TaskId,
    pub(super) kind: Kind,
    pub(super) requester: String,
    pub(super) needed: u32,
    /// Of the statement, in hex.
    pub(super) digest: String,
    /// How many agents the statement names.
    pub(super) agents: u64,
    /// Seconds.
    pub(super) timeout: u32,
    /// Seconds from the release in which it may start.
    pub(super) expires_in: u32,
    /// The last second in which it may start, since 1970.
    pub(super) not_after: i64,
    /// As stored; see [`State::shown`].
    pub(super) state: State,
    pub(super) decided_by: Option<String>,
    pub(super) decided_at: Option<Micros>,
    pub(super) reason: Option<String>,
    pub(super) created_at: Micros,
}

#[derive(sqlx::FromRow)]
struct RequestRow {
    task_id: String,
    kind: String,
    requester: String,
    needed: i64,
    digest: String,
    agents: i64,
    timeout: i64,
    expires_in: i64,
    not_after: i64,
    state: String,
    decided_by: Option<String>,
    decided_at: Option<i64>,
    reason: Option<String>,
    created_at: i64,
}

const KINDS: [(&str, Kind); 2] = [("command", Kind::Command), ("deploy", Kind::Deploy)];

impl TryFrom<RequestRow> for Request {
    type Error = StoreError;
    fn try_from(row: RequestRow) -> Result<Self, StoreError> {
        let kind = KINDS.into_iter().find(|(name, _)| *name == row.kind).ok_or_else(|| corrupt("kind"))?;
        Ok(Self {
            task_id: row.task_id.parse().map_err(corrupt)?,
            kind: kind.1,
            requester: row.requester,
            needed: u32::try_from(row.needed).map_err(corrupt)?,
            digest: row.digest,
            agents: row.agents.unsigned_abs(),
            timeout: u32::try_from(row.timeout).map_err(corrupt)?,
            expires_in: u32::try_from(row.expires_in).map_err(corrupt)?,
            not_after: row.not_after,
            state: State::parse(&row.state).ok_or_else(|| corrupt("state"))?,
            decided_by: row.decided_by,
            decided_at: row.decided_at.map(Micros),
            reason: row.reason,
            created_at: Micros(row.created_at),
        })
    }
}

/// Writes a request with its sealed statement.
pub(super) async fn insert(tx: &mut Tx, new: &Request, sealed: &[u8]) -> Result<(), StoreError> {
    let kind = KINDS.into_iter().find(|(_, kind)| *kind == new.kind).map_or("", |(name, _)| name);
    let row: [Value; 12] = [
        (&new.task_id).into(),
        kind.into(),
        new.requester.as_str().into(),
        new.needed.into(),
        new.digest.as_str().into(),
        sealed.into(),
        new.agents.into(),
        new.timeout.into(),
        new.expires_in.into(),
        new.not_after.into(),
        new.state.as_str().into(),
        new.created_at.into(),
    ];
    tx.run(INSERT_REQUEST.query().rows([row])).await.map(drop)
}

pub(super) async fn request(mut read: impl Read, task: &TaskId) -> Result<Option<Request>, StoreError> {
    read.first::<RequestRow>(REQUEST.bind(task)).await?.map(TryInto::try_into).transpose()
}

/// The sealed statement of a task.
pub(super) async fn sealed(store: &Store, task: &TaskId) -> Result<Option<Vec<u8>>, StoreError> {
    let row: Option<(Vec<u8>,)> = store.first(SEALED.bind(task)).await?;
    Ok(row.map(|(sealed,)| sealed))
}

/// Requests from before this place (when it was made, and its task) that may wait until this second or later, newest
/// first.
pub(super) async fn list(
    store: &Store,
    state: Option<State>,
    not_after: i64,
    (at, id): &(i64, String),
    limit: usize,
) -> Result<Vec<Request>, StoreError> {
    let state = state.map(State::as_str);
    let query = LIST.bind(*at).bind(*at).bind(id.as_str()).bind(state).bind(state);
    let query = query.bind(not_after).bind(limit as u64);
    let rows: Vec<RequestRow> = store.all(query).await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// What became of a request.
pub(super) struct Decision<'a> {
    pub(super) state: State,
    pub(super) by: &'a str,
    pub(super) reason: Option<&'a str>,
    /// The sealed statement without what may be secret.
    pub(super) sealed: &'a [u8],
}

/// Writes what became of a request. The caller holds its task's lock.
pub(super) async fn decide(
    tx: &mut Tx,
    task: &TaskId,
    decision: &Decision<'_>,
    now: Micros,
) -> Result<(), StoreError> {
    let Decision { state, by, reason, sealed } = *decision;
    let query = DECIDE.bind(state.as_str()).bind(by).bind(now).bind(reason).bind(sealed);
    tx.run(query.bind(task)).await.map(drop)
}

/// Forgets requests and approvals.
pub(super) async fn delete(tx: &mut Tx, tasks: &[TaskId]) -> Result<(), StoreError> {
    tx.run(DELETE_APPROVALS.query().list(tasks)).await?;
    tx.run(DELETE_REQUESTS.query().list(tasks)).await.map(drop)
}

/// Somebody's word.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct Given {
    pub(super) task_id: String,
    /// The account's name.
    pub(super) person: String,
    /// None: the installation's admin token.
    pub(super) user_id: Option<i64>,
    /// The key that signed.
    pub(super) key_id: Option<String>,
    /// Armored.
    pub(super) signature: Option<String>,
    pub(super) given_at: i64,
}

/// Who agreed to these tasks so far.
pub(super) async fn given(mut read: impl Read, tasks: &[TaskId]) -> Result<Vec<Given>, StoreError> {
    let mut all = Vec::new();
    for some in tasks.chunks(LIST_VALUES_MAX) {
        all.extend(read.all::<Given>(GIVEN.query().list(some)).await?);
    }
    Ok(all)
}

pub(super) async fn insert_given(tx: &mut Tx, given: &Given) -> Result<(), StoreError> {
    let row: [Value; 6] = [
        given.task_id.as_str().into(),
        given.person.as_str().into(),
        given.user_id.into(),
        given.key_id.as_deref().into(),
        given.signature.as_deref().into(),
        given.given_at.into(),
    ];
    tx.run(INSERT_APPROVAL.query().rows([row])).await.map(drop)
}

/// Replaces somebody's earlier word.
pub(super) async fn replace_given(tx: &mut Tx, given: &Given) -> Result<(), StoreError> {
    let query =
        SIGN_APPROVAL.bind(given.user_id).bind(given.key_id.as_deref()).bind(given.signature.as_deref());
    tx.run(query.bind(given.given_at).bind(given.task_id.as_str()).bind(given.person.as_str()))
        .await
        .map(drop)
}

/// A key that signs approvals.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct KeyRow {
    pub(super) id: String,
    pub(super) user_id: i64,
    /// One line, as in `authorized_keys`.
    pub(super) public_key: String,
    /// `SHA256:…`
    pub(super) fingerprint: String,
    pub(super) comment: String,
    pub(super) created_at: i64,
}

/// Keys of one account, or of all, oldest first.
pub(super) async fn keys(store: &Store, user: Option<i64>, limit: usize) -> Result<Vec<KeyRow>, StoreError> {
    store.all(KEYS.bind(user).bind(user).bind(limit as u64)).await
}

pub(super) async fn key_in(tx: &mut Tx, fingerprint: &str) -> Result<Option<KeyRow>, StoreError> {
    tx.first(KEY_BY_FINGERPRINT.bind(fingerprint)).await
}

/// These keys, as far as they are still there.
pub(super) async fn keys_in(tx: &mut Tx, ids: &[String]) -> Result<Vec<KeyRow>, StoreError> {
    tx.all(KEYS_BY_ID.query().list(ids.iter().map(String::as_str))).await
}

pub(super) async fn count_keys(tx: &mut Tx, user: i64) -> Result<usize, StoreError> {
    let row: Option<(i64,)> = tx.first(COUNT_KEYS.bind(user)).await?;
    Ok(row.map_or(0, |(n,)| usize::try_from(n).unwrap_or(usize::MAX)))
}

pub(super) async fn insert_key(tx: &mut Tx, key: &KeyRow) -> Result<(), StoreError> {
    let row: [Value; 6] = [
        key.id.as_str().into(),
        key.user_id.into(),
        key.public_key.as_str().into(),
        key.fingerprint.as_str().into(),
        key.comment.as_str().into(),
        key.created_at.into(),
    ];
    tx.run(INSERT_KEY.query().rows([row])).await.map(drop)
}

pub(super) async fn delete_key(tx: &mut Tx, id: &str) -> Result<(), StoreError> {
    tx.run(DELETE_KEY.bind(id)).await.map(drop)
}
