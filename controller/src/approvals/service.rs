//! What approvals do: hold what a rule asks for, count who agrees, and let it go or end it.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;
use signet_common::fault::{self, Point};
use signet_common::limits::STATEMENT_AGENTS_MAX;
use signet_common::statement::{Approval, Kind, NAMESPACE, Statement, StatementDigest};
use signet_common::time::Micros;
use signet_common::{Hostname, TaskId, sshsig};

use super::message::{self, Holder, Work};
use super::model::{Need, State, needed};
use super::store::{self, Decision, Given, Request};
use super::view::hide;
use crate::accounts::{Accounts, Caller, within};
use crate::audit::{self, Action, Author, Note};
use crate::dispatch::{self, Approved, Body, Dispatch, HeldTask, Order, Sent};
use crate::error::{Error, Result};
use crate::hosts::{Candidate, Hosts};
use crate::http::permissions::Need as Right;
use crate::keys::Keys;
use crate::limits::TARGETS_SHOWN_MAX;
use crate::store::{Store, Tx, in_transaction};

/// Approvals. Cheap to clone.
#[derive(Clone)]
pub struct Approvals {
    store: Store,
    accounts: Accounts,
    hosts: Hosts,
    dispatch: Dispatch,
    keys: Keys,
}

impl std::fmt::Debug for Approvals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Approvals")
    }
}

/// Work that is to be held.
pub struct Asked<'a> {
    /// Who asks; can't approve it.
    pub requester: &'a str,
    /// What it needs.
    pub need: Need,
    /// As it would be sent.
    pub order: &'a Order<'a>,
    /// What it says; its claims don't count.
    pub work: Work<'a>,
}

/// Somebody agrees.
#[derive(Debug, Clone)]
pub(super) struct Word {
    /// Of the statement that was read.
    pub(super) digest: String,
    /// An armored SSH signature over the statement.
    pub(super) signature: Option<String>,
}

/// A feature that agents must know to be sent what was approved.
const FEATURE: &str = "approval";

/// Under which name a statement is sealed: one can't be put in another's place.
fn sealed_name(task: &TaskId) -> String {
    format!("statement.{task}")
}

fn internal(error: impl std::fmt::Display) -> Error {
    Error::Internal(error.to_string())
}

fn unknown() -> Error {
    Error::NotFound("No approval is asked for this task".into())
}

impl Approvals {
    /// Approvals over these parts.
    #[must_use]
    pub fn new(store: Store, accounts: Accounts, hosts: Hosts, dispatch: Dispatch, keys: Keys) -> Self {
        Self { store, accounts, hosts, dispatch, keys }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// What a request for these hosts needs before it may run; `all`: its target is all hosts.
    ///
    /// # Errors
    /// The database's.
    pub async fn needed(
        &self,
        tx: &mut Tx,
        kind: Kind,
        all: bool,
        hosts: &[Candidate],
    ) -> Result<Option<Need>> {
        let rules = store::rules(&mut *tx).await?;
        if rules.is_empty() {
            return Ok(None);
        }
        let groups: BTreeSet<&str> = hosts.iter().map(|host| host.group.as_str()).collect();
        Ok(needed(&rules, kind, all, &groups))
    }

    /// Writes an order's deliveries and what approvers are to agree to, and holds it until enough did. Says whether it
    /// waits: an order that no agent could run ends at once.
    ///
    /// # Errors
    /// 400 for more agents than a statement may name, 413 when the message with it would be too large, the database's.
    pub async fn hold(&self, tx: &mut Tx, asked: &Asked<'_>) -> Result<(Sent, bool)> {
        let features: Vec<&str> = asked.order.features.iter().copied().chain([FEATURE]).collect();
        let order = Order { features: &features, ..*asked.order };
        let not_after = order.now.seconds() + i64::from(asked.need.wait) + i64::from(order.expires_in);
        // The whole last second counts.
        let held = self.dispatch.hold(tx, &order, Micros::from_seconds(not_after + 1)).await?;
        if held.agents.is_empty() {
            return Ok((held.sent, false));
        }
        if held.agents.len() > STATEMENT_AGENTS_MAX {
            let text = format!(
                "target names {} hosts; what needs approval may have {STATEMENT_AGENTS_MAX}",
                held.agents.len()
            );
            return Err(Error::invalid("target", text));
        }
        let statement = asked.work.statement(asked.requester, not_after, held.agents).map_err(internal)?;
        let bytes = statement.to_bytes().map_err(internal)?;
        message::fits(&statement, &bytes, asked.need, asked.work.credential())?;
        let request = Request {
            task_id: order.task_id.clone(),
            kind: statement.kind,
            requester: asked.requester.to_owned(),
            needed: asked.need.approvals,
            digest: StatementDigest::of(&bytes).to_string(),
            agents: statement.agents.len() as u64,
            timeout: order.timeout,
            expires_in: order.expires_in,
            not_after,
            state: State::Awaiting,
            decided_by: None,
            decided_at: None,
            reason: None,
            created_at: order.now,
        };
        let sealed = self.keys.master().seal(&sealed_name(order.task_id), &bytes).map_err(internal)?;
        store::insert(tx, &request, &sealed).await?;
        Ok((held.sent, true))
    }

    pub(super) async fn request(&self, task: &TaskId) -> Result<Request> {
        store::request(&self.store, task).await?.ok_or_else(unknown)
    }

    /// The exact bytes that are agreed to.
    pub(super) async fn statement(&self, task: &TaskId) -> Result<Vec<u8>> {
        let sealed = store::sealed(&self.store, task).await?.ok_or_else(unknown)?;
        self.keys.master().open(&sealed_name(task), &sealed).map_err(internal)
    }

    /// The groups that a task's hosts are in now.
    pub(super) async fn groups_of(&self, task: &TaskId) -> Result<BTreeSet<String>> {
        let (mut groups, mut after) = (BTreeSet::new(), 0);
        loop {
            let some = dispatch::targets(&self.store, task, after, TARGETS_SHOWN_MAX).await?;
            let Some(last) = some.last() else { return Ok(groups) };
            after = last.ordinal;
            let names: Vec<Hostname> = some.into_iter().map(|target| target.hostname).collect();
            groups.extend(self.hosts.groups_of(&names).await?);
        }
    }

    /// Agrees to a statement; the last one that is needed lets it go. To agree again changes nothing.
    ///
    /// # Errors
    /// 404 without a request; 403 for its requester, and when a host is in a group that the caller may not touch; 409 for
    /// another digest and when it waits no more; 422 for a signature that is not by a key of the caller.
    pub(super) async fn approve(
        &self,
        caller: &Caller,
        by: &Author,
        task: &TaskId,
        word: &Word,
        holder: &dyn Holder,
    ) -> Result<()> {
        let request = self.request(task).await?;
        if caller.name == request.requester {
            return Err(Error::Forbidden("who asked for it can't approve it".into()));
        }
        let groups = self.groups_of(task).await?;
        within(caller.groups.as_ref(), &groups)?;
        let bytes = self.statement(task).await?;
        if request.digest != word.digest {
            return Err(Error::Conflict(
                "this is another statement than the one that waits: read it again".into(),
            ));
        }
        // Once it is decided, the values that may be secrets are gone, and with them the exact bytes.
        let signature = word.signature.as_deref().filter(|_| request.state == State::Awaiting);
        let signer = signature.map(|armored| signer(armored, &bytes)).transpose()?;
        let released = in_transaction!(self.store, |tx| -> Result<bool> {
            let held = self.dispatch.lock_held(tx, task).await?;
            let now = Micros::now();
            let mut given = store::given(&mut *tx, std::slice::from_ref(task)).await?;
            let mine = given.iter().position(|g| g.person == caller.name);
            let Some(held) = held else {
                return if mine.is_some() { Ok(false) } else { Err(over()) };
            };
            if now.seconds() > request.not_after {
                return Err(Error::Conflict("the request has expired".into()));
            }
            let mut new = own_word(tx, caller, task, word, signer.as_deref(), now).await?;
            let changed = match mine.map(|at| given.remove(at)) {
                None => {
                    store::insert_given(tx, &new).await?;
                    true
                }
                // A signature is not taken back by a word without one, unless it doesn't count any more.
                Some(old) if new.signature.is_none() && self.counts(tx, &request, &groups, &old).await? => {
                    new = old;
                    false
                }
                Some(_) => {
                    store::replace_given(tx, &new).await?;
                    true
                }
            };
            given.push(new);
            let counted = self.counted(tx, &request, &groups, given).await?;
            let enough = counted.len() >= request.needed as usize;
            if changed || enough {
                let said = json!({ "digest": request.digest, "signed_with": signer, "released": enough });
                audit::note(tx, by, Note::of(Action::ApprovalGive, task.as_str()).new(said)).await?;
            }
            if !enough {
                return Ok(false);
            }
            let people: Vec<String> = counted.iter().map(|given| given.person.clone()).collect();
            self.release(tx, held, &request, &bytes, counted, holder).await?;
            self.decide(tx, task, State::Approved, (caller, None), &bytes, now).await?;
            holder.released(tx, task, &people).await?;
            fault::hit(Point::ControllerBeforeCommit);
            Ok(true)
        })?;
        if released {
            fault::hit(Point::ControllerAfterCommit);
            self.dispatch.decided(task);
        }
        Ok(())
    }

    /// Of these words those that count now: their givers are not the requester, are still there and may still do this
    /// themselves, and the key is still theirs.
    async fn counted(
        &self,
        tx: &mut Tx,
        request: &Request,
        groups: &BTreeSet<String>,
        given: Vec<Given>,
    ) -> Result<Vec<Given>> {
        let ids: Vec<i64> = given.iter().filter_map(|g| g.user_id).collect();
        let users = self.accounts.users(tx, &ids).await?;
        let ids: Vec<String> = given.iter().filter_map(|g| g.key_id.clone()).collect();
        let keys = store::keys_in(tx, &ids).await?;
        let may = |g: &Given| match g.user_id {
            // The installation's own admin token.
            None => true,
            Some(id) => users.iter().any(|user| {
                user.id == id
                    && user.is_active
                    && Right::Operate.allows(user.role)
                    && within(user.host_groups.as_ref(), groups).is_ok()
            }),
        };
        let signed = |g: &Given| {
            g.key_id
                .as_ref()
                .is_none_or(|id| keys.iter().any(|k| &k.id == id && Some(k.user_id) == g.user_id))
        };
        let good = |g: &Given| g.person != request.requester && may(g) && signed(g);
        Ok(given.into_iter().filter(good).collect())
    }

    /// Writes what became of a request; what may be secret in its statement goes, because nobody has to read it exactly any
    /// more.
    async fn decide(
        &self,
        tx: &mut Tx,
        task: &TaskId,
        state: State,
        (caller, reason): (&Caller, Option<&str>),
        bytes: &[u8],
        now: Micros,
    ) -> Result<()> {
        let mut statement = Statement::parse(bytes).map_err(internal)?;
        hide(&mut statement.message);
        let bytes = statement.to_bytes().map_err(internal)?;
        let sealed = self.keys.master().seal(&sealed_name(task), &bytes).map_err(internal)?;
        let decision = Decision { state, by: &caller.name, reason, sealed: &sealed };
        Ok(store::decide(tx, task, &decision, now).await?)
    }

    async fn counts(
        &self,
        tx: &mut Tx,
        request: &Request,
        groups: &BTreeSet<String>,
        given: &Given,
    ) -> Result<bool> {
        Ok(!self.counted(tx, request, groups, vec![given.clone()]).await?.is_empty())
    }

    async fn release(
        &self,
        tx: &mut Tx,
        held: HeldTask,
        request: &Request,
        bytes: &[u8],
        counted: Vec<Given>,
        holder: &dyn Holder,
    ) -> Result<()> {
        let now = Micros::now();
        let statement = Statement::parse(bytes).map_err(internal)?;
        let approvers = counted.iter().map(|given| given.person.clone()).collect();
        let signatures = counted.into_iter().filter_map(|given| given.signature).collect();
        let approval = Approval { statement: bytes.to_vec(), approvers, signatures };
        let carries = |field: &str| statement.message.contains_key(field);
        let seal = match carries(message::CREDENTIAL) {
            true => Some(holder.seal(tx, &statement.task_id).await?),
            false => None,
        };
        let payload_type = message::payload_type(statement.kind);
        let secret = ["env", "stdin", message::CREDENTIAL].into_iter().any(carries);
        let body: Body = Arc::new(move |claims| {
            let credential = seal.as_ref().map(|seal| seal(claims)).transpose()?;
            message::body(&statement, &approval, claims, credential)
        });
        let approved = Approved {
            payload_type,
            now,
            exp: (now.seconds() + i64::from(request.expires_in)).min(request.not_after),
            timeout: request.timeout,
            secret,
            body,
        };
        self.dispatch.release_held(tx, held, approved).await
    }

    /// Refuses a request: nothing of it ever runs.
    ///
    /// # Errors
    /// 404 without a request, 403 as [`Approvals::approve`] (but a requester may), 409 when it waits no more.
    pub(super) async fn refuse(
        &self,
        caller: &Caller,
        by: &Author,
        task: &TaskId,
        reason: Option<&str>,
    ) -> Result<()> {
        self.request(task).await?;
        let bytes = self.statement(task).await?;
        if caller.groups.is_some() {
            within(caller.groups.as_ref(), &self.groups_of(task).await?)?;
        }
        let why = reason.map_or(String::new(), |reason| format!(": {reason}"));
        let text = format!("not approved: refused by {}{why}", caller.name);
        in_transaction!(self.store, |tx| -> Result<()> {
            let held = self.dispatch.lock_held(tx, task).await?.ok_or_else(over)?;
            let now = Micros::now();
            let said = json!({ "reason": reason });
            audit::note(tx, by, Note::of(Action::ApprovalRefuse, task.as_str()).new(said)).await?;
            self.decide(tx, task, State::Refused, (caller, reason), &bytes, now).await?;
            self.dispatch.refuse_held(tx, held, &text, now).await
        })?;
        self.dispatch.decided(task);
        Ok(())
    }
}

fn over() -> Error {
    Error::Conflict("this request waits no more: it was decided, was cancelled or has expired".into())
}

/// The fingerprint of the key that signed these bytes as an approval.
fn signer(armored: &str, bytes: &[u8]) -> Result<String> {
    let key = sshsig::verify(armored, NAMESPACE, bytes);
    key.map(|key| key.fingerprint()).map_err(|e| Error::Unprocessable(format!("signature: {e}")))
}

/// The caller's word, with the key that signed it.
async fn own_word(
    tx: &mut Tx,
    caller: &Caller,
    task: &TaskId,
    word: &Word,
    signer: Option<&str>,
    now: Micros,
) -> Result<Given> {
    let key_id = match signer {
        Some(fingerprint) => Some(own_key(tx, caller, fingerprint).await?),
        None => None,
    };
    Ok(Given {
        task_id: task.to_string(),
        person: caller.name.clone(),
        user_id: caller.user.map(|(id, _)| id),
        signature: key_id.as_ref().and(word.signature.clone()),
        key_id,
        given_at: now.0,
    })
}

/// The id of the caller's own key with this fingerprint.
async fn own_key(tx: &mut Tx, caller: &Caller, fingerprint: &str) -> Result<String> {
    let key = store::key_in(tx, fingerprint).await?;
    let own = key.filter(|key| caller.user.is_some_and(|(id, _)| id == key.user_id));
    own.map(|key| key.id).ok_or_else(|| {
        Error::Unprocessable(format!("signature: {fingerprint} is no approver key of this account"))
    })
}
