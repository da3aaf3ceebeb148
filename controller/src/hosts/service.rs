//! What hosts do: who is there, whose keys count, servers and their keys for people.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::json;
use signet_common::ids::is_group_name;
use signet_common::limits::GROUP_CHARS_MAX;
use signet_common::time::Micros;
use signet_common::{AgentId, Hostname, KeyId, PublicKey};

use super::beat_store;
use super::join_store;
use super::known_keys::KnownKeys;
use super::model::{Candidate, KeyStanding, ONLINE_SECONDS, Reachable, Target};
use super::sealing_keys;
use super::store::{self, AgentRow, ServerFilter, ServerRow};
use crate::audit::{self, Action, Author, Note};
use crate::dispatch::Dispatch;
use crate::error::{Error, Result};
use crate::limits::{CLAIMS_SHOWN_MAX, JOIN_TOKEN_KEPT_SECONDS};
use crate::store::{Store, StoreError, Tx, in_transaction};

/// The group of a server that names none.
pub(super) const DEFAULT_GROUP: &str = "default";

/// Hosts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Hosts {
    pub(super) store: Store,
    known: Arc<KnownKeys>,
}

/// A server with its labels.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) row: ServerRow,
    pub(super) labels: BTreeMap<String, String>,
    /// Nothing is sent to it until an admin accepts it.
    pub(super) set_aside: bool,
}

impl Server {
    pub(super) fn online(&self, now: Micros) -> bool {
        let fresh = self.row.received_at.is_some_and(|at| Micros(at).plus_seconds(ONLINE_SECONDS) > now);
        fresh && self.row.stopping == Some(0)
    }
}

/// A server that somebody adds.
#[derive(Debug, Clone)]
pub(super) struct NewServer {
    pub(super) hostname: Hostname,
    pub(super) ip: IpAddr,
    pub(super) group: String,
    pub(super) labels: BTreeMap<String, String>,
}

/// A host's accepted key.
#[derive(Debug, Clone)]
pub(super) struct HostKey {
    pub(super) row: AgentRow,
    pub(super) created_at: i64,
}

impl Hosts {
    /// Hosts over this database.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, known: Arc::default() }
    }

    /// The servers that a target names now, by hostname.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn candidates(&self, tx: &mut Tx, target: &Target) -> Result<Vec<Candidate>> {
        Ok(store::candidates(tx, target).await?)
    }

    /// The groups of these servers; those that are gone have none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn groups_of(&self, hosts: &[Hostname]) -> Result<Vec<String>> {
        Ok(store::groups(&self.store, hosts).await?)
    }

    /// The public keys of these agents in PEM, whatever their standing.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn public_keys(&self, agents: &[AgentId]) -> Result<HashMap<String, String>> {
        Ok(store::public_keys(&self.store, agents).await?.into_iter().collect())
    }

    /// The keys (base64) to which secrets for these agents are sealed, of those that showed one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sealing_keys(&self, tx: &mut Tx, agents: &[AgentId]) -> Result<HashMap<AgentId, String>> {
        Ok(sealing_keys::of(tx, agents).await?)
    }

    /// How reachable these agents are.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn reachable(&self, tx: &mut Tx, agents: &[AgentId]) -> Result<HashMap<AgentId, Reachable>> {
        Ok(store::reachable(tx, agents).await?)
    }

    /// The key that a report or heartbeat names, if its word counts.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn known_key(&self, id: &KeyId) -> Result<Option<PublicKey>> {
        let found = self.known.find(&self.store, id).await?;
        Ok(found.filter(|k| k.standing.is_heard()).map(|k| k.key))
    }

    /// Makes changed keys count at once here; other controllers follow within a second.
    pub(super) fn keys_changed(&self) {
        self.known.stale();
    }

    /// How many servers are online.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count_online(&self) -> Result<i64> {
        Ok(beat_store::count_online(&self.store, Micros::now().plus_seconds(-ONLINE_SECONDS)).await?)
    }

    pub(super) async fn servers(
        &self,
        dispatch: &Dispatch,
        filter: &ServerFilter,
        after: &str,
        limit: usize,
    ) -> Result<Vec<Server>> {
        let rows = store::list_servers(&self.store, filter, after, limit).await?;
        self.complete(dispatch, rows).await
    }

    pub(super) async fn server(&self, dispatch: &Dispatch, host: &Hostname) -> Result<Server> {
        let row = store::server(&self.store, host).await?.ok_or_else(unknown_server)?;
        self.complete(dispatch, vec![row]).await?.pop().ok_or_else(unknown_server)
    }

    /// Rows with their labels, and what holds them.
    async fn complete(&self, dispatch: &Dispatch, rows: Vec<ServerRow>) -> Result<Vec<Server>> {
        let names: Vec<String> = rows.iter().map(|r| r.hostname.clone()).collect();
        let mut labels: HashMap<String, BTreeMap<String, String>> = HashMap::new();
        for (host, name, value) in store::labels(&self.store, &names).await? {
            labels.entry(host).or_default().insert(name, value);
        }
        let agents: Vec<AgentId> = rows.iter().filter_map(|r| r.agent_id.as_deref()?.parse().ok()).collect();
        let standings = dispatch.standings(&agents).await?;
        let set_aside: HashSet<&str> =
            standings.iter().filter(|(_, s)| s.is_set_aside()).map(|(id, _)| id.as_str()).collect();
        let server = |row: ServerRow| Server {
            labels: labels.remove(&row.hostname).unwrap_or_default(),
            set_aside: row.agent_id.as_deref().is_some_and(|id| set_aside.contains(id)),
            row,
        };
        Ok(rows.into_iter().map(server).collect())
    }

    pub(super) async fn add_server(
        &self,
        by: &Author,
        dispatch: &Dispatch,
        new: &NewServer,
    ) -> Result<Server> {
        let now = Micros::now();
        let added = in_transaction!(self.store, |tx| -> Result<()> {
            store::insert_server(tx, &new.hostname, &new.ip.to_string(), &new.group, None, now).await?;
            store::set_labels(tx, &new.hostname, &new.labels).await?;
            let note = Note::of(Action::ServerAdd, new.hostname.as_str());
            let note = note.new(json!({ "ip": new.ip, "group": new.group, "labels": new.labels }));
            Ok(audit::note(tx, by, note).await?)
        });
        match added {
            Err(Error::Store(StoreError::Duplicate(_))) => Err(Error::Conflict("主机名已存在".into())),
            Err(error) => Err(error),
            Ok(()) => self.server(dispatch, &new.hostname).await,
        }
    }

    pub(super) async fn change_server(
        &self,
        by: &Author,
        dispatch: &Dispatch,
        host: &Hostname,
        ip: Option<IpAddr>,
        group: Option<String>,
        labels: Option<BTreeMap<String, String>>,
    ) -> Result<Server> {
        let ip = ip.map(|ip| ip.to_string());
        in_transaction!(self.store, |tx| -> Result<()> {
            store::server_agent(tx, host).await?.ok_or_else(unknown_server)?;
            let old = store::described(tx, host).await?;
            store::update_server(tx, host, ip.as_deref(), group.as_deref()).await?;
            if let Some(labels) = &labels {
                store::set_labels(tx, host, labels).await?;
            }
            let new = store::described(tx, host).await?;
            Ok(audit::note(tx, by, Note::of(Action::ServerChange, host.as_str()).old(old).new(new)).await?)
        })?;
        self.server(dispatch, host).await
    }

    /// Forgets a server and revokes its key. Gives the agent whose queue is to go.
    pub(super) async fn delete_server(
        &self,
        by: &Author,
        dispatch: &Dispatch,
        host: &Hostname,
    ) -> Result<Option<AgentId>> {
        let now = Micros::now();
        let agent = in_transaction!(self.store, |tx| -> Result<Option<AgentId>> {
            let agent = store::server_agent(tx, host).await?.ok_or_else(unknown_server)?;
            if let Some(agent) = &agent {
                dispatch.host_removed(tx, agent, "host removed").await?;
                store::set_standing(tx, agent, KeyStanding::Revoked, host, now).await?;
                beat_store::delete_beat(tx, agent).await?;
            }
            let old = store::described(tx, host).await?;
            store::delete_server(tx, host).await?;
            audit::note(tx, by, Note::of(Action::ServerDelete, host.as_str()).old(old)).await?;
            Ok(agent)
        })?;
        self.keys_changed();
        Ok(agent)
    }

    pub(super) async fn host_keys(&self, after: &str, limit: usize) -> Result<Vec<HostKey>> {
        let rows = store::list_keys(&self.store, after, limit).await?;
        let names: Vec<String> = rows.iter().map(|r| r.hostname.clone()).collect();
        let first = store::first_keys_at(&self.store, &names).await?;
        let key = |row: AgentRow| {
            let created_at = first.get(&row.hostname).copied().unwrap_or(row.created_at);
            HostKey { row, created_at }
        };
        Ok(rows.into_iter().map(key).collect())
    }

    pub(super) async fn host_key(&self, host: &Hostname) -> Result<HostKey> {
        let row =
            store::key_of(&self.store, host).await?.ok_or_else(|| Error::NotFound("公钥不存在".into()))?;
        let first = store::first_keys_at(&self.store, std::slice::from_ref(&row.hostname)).await?;
        let created_at = first.get(&row.hostname).copied().unwrap_or(row.created_at);
        Ok(HostKey { row, created_at })
    }

    /// Gives a host this key on an admin's word; another one that it had is replaced, an unknown host is made.
    pub(super) async fn put_host_key(
        &self,
        by: &Author,
        dispatch: &Dispatch,
        host: &Hostname,
        key: &PublicKey,
    ) -> Result<HostKey> {
        let now = Micros::now();
        in_transaction!(self.store, |tx| -> Result<()> {
            let id = key.agent_id();
            if store::server_agent(tx, host).await?.is_none() {
                store::insert_server(tx, host, "", DEFAULT_GROUP, None, now).await?;
            }
            match store::agent(tx, &id).await? {
                None => store::insert_agent(tx, key, host, KeyStanding::Pending, None, now).await?,
                Some(row) if row.hostname != host.as_str() && row.standing()? == KeyStanding::Accepted => {
                    return Err(Error::Conflict(format!("this key belongs to {}", row.hostname)));
                }
                Some(row) if row.standing()? == KeyStanding::Revoked => return Err(revoked()),
                Some(_) => {}
            }
            let old = store::server_agent(tx, host).await?.flatten();
            self.attach(tx, dispatch, &id, host, now).await?;
            let note = Note::of(Action::HostKeyPut, host.as_str());
            let note = note.old(json!({ "agent": old })).new(json!({ "agent": id, "fingerprint": key.id() }));
            Ok(audit::note(tx, by, note).await?)
        })?;
        self.keys_changed();
        self.host_key(host).await
    }

    /// Makes a stored key the accepted one of its host; the one before is replaced.
    pub(super) async fn attach(
        &self,
        tx: &mut Tx,
        dispatch: &Dispatch,
        id: &AgentId,
        host: &Hostname,
        now: Micros,
    ) -> Result<()> {
        let before = store::server_agent(tx, host).await?.ok_or_else(unknown_server)?;
        if before.as_ref() == Some(id) {
            return Ok(());
        }
        if let Some(old) = before {
            dispatch.key_replaced(tx, &old).await?;
            store::set_standing(tx, &old, KeyStanding::Replaced, host, now).await?;
        }
        store::set_standing(tx, id, KeyStanding::Accepted, host, now).await?;
        Ok(store::set_server_agent(tx, host, Some(id)).await?)
    }

    pub(super) async fn agents(
        &self,
        standing: Option<KeyStanding>,
        after: &str,
        limit: usize,
    ) -> Result<Vec<AgentRow>> {
        Ok(store::list_agents(&self.store, standing, after, limit).await?)
    }

    pub(super) async fn agent(&self, id: &AgentId) -> Result<AgentRow> {
        store::agent_of(&self.store, id).await?.ok_or_else(|| Error::NotFound("Agent not found".into()))
    }

    /// Pending keys that claim this name.
    pub(super) async fn claims(&self, host: &Hostname) -> Result<Vec<AgentRow>> {
        Ok(store::claims(&self.store, host, CLAIMS_SHOWN_MAX).await?)
    }

    /// Forgets what nobody could use again anyway.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn forget_old(&self) -> Result<()> {
        let now = Micros::now();
        join_store::delete_old(&self.store, now.plus_seconds(-JOIN_TOKEN_KEPT_SECONDS)).await?;
        Ok(store::delete_old_nonces(&self.store, now).await?)
    }

    pub(super) async fn beat(&self, id: &AgentId) -> Result<Option<beat_store::BeatRow>> {
        Ok(beat_store::beat(&self.store, id).await?)
    }

    /// Accepts a pending key after its fingerprint was compared, or a host that was set aside.
    pub(super) async fn accept(&self, by: &Author, dispatch: &Dispatch, id: &AgentId) -> Result<()> {
        let now = Micros::now();
        in_transaction!(self.store, |tx| -> Result<()> {
            let row = store::agent(tx, id).await?.ok_or_else(|| Error::NotFound("Agent not found".into()))?;
            let host: Hostname = row.hostname.parse().map_err(|e| Error::Internal(format!("{e}")))?;
            let holder = store::server_agent(tx, &host).await?.flatten();
            let was = row.standing()?;
            match was {
                KeyStanding::Accepted if dispatch.accept_host(tx, id).await? => {}
                KeyStanding::Accepted => {
                    return Err(Error::Conflict("this agent is accepted and not set aside".into()));
                }
                KeyStanding::Revoked => return Err(revoked()),
                KeyStanding::Pending | KeyStanding::Replaced => {
                    if store::server_agent(tx, &host).await?.is_none() {
                        let group = row.wanted_group.as_deref().unwrap_or(DEFAULT_GROUP);
                        store::insert_server(tx, &host, "", group, None, now).await?;
                    }
                    self.attach(tx, dispatch, id, &host, now).await?;
                }
            }
            let old = json!({ "standing": was.as_str(), "agent": holder });
            let new = json!({ "agent": id, "hostname": host, "fingerprint": row.known()?.key.id() });
            Ok(audit::note(tx, by, Note::of(Action::AgentAccept, id.as_str()).old(old).new(new)).await?)
        })?;
        self.keys_changed();
        Ok(())
    }

    /// Revokes a key: nothing it says counts any more.
    pub(super) async fn revoke(&self, by: &Author, dispatch: &Dispatch, id: &AgentId) -> Result<()> {
        let now = Micros::now();
        in_transaction!(self.store, |tx| -> Result<()> {
            let host = self.revoke_in(tx, dispatch, id, now).await?;
            let note = Note::of(Action::AgentRevoke, id.as_str()).old(json!({ "hostname": host }));
            Ok(audit::note(tx, by, note).await?)
        })?;
        self.keys_changed();
        Ok(())
    }

    /// [`Hosts::revoke`] inside a transaction; [`Hosts::keys_changed`] is to follow.
    pub(super) async fn revoke_in(
        &self,
        tx: &mut Tx,
        dispatch: &Dispatch,
        id: &AgentId,
        now: Micros,
    ) -> Result<Hostname> {
        let row = store::agent(tx, id).await?.ok_or_else(|| Error::NotFound("Agent not found".into()))?;
        let host: Hostname = row.hostname.parse().map_err(|e| Error::Internal(format!("{e}")))?;
        // The server's lock first: a command that is asked for meanwhile comes before or after all of this.
        let holder = store::server_agent(tx, &host).await?.flatten();
        dispatch.host_removed(tx, id, "key revoked").await?;
        store::set_standing(tx, id, KeyStanding::Revoked, &host, now).await?;
        beat_store::delete_beat(tx, id).await?;
        if holder.as_ref() == Some(id) {
            store::set_server_agent(tx, &host, None).await?;
        }
        Ok(host)
    }
}

/// 409 of a key that was revoked: that lasts, whoever asks.
fn revoked() -> Error {
    Error::Conflict("this key was revoked; the host needs a new one".into())
}

/// Checks the name of a group.
pub(super) fn group_name(text: &str) -> Result<()> {
    if !is_group_name(text) {
        let what =
            format!("group must have 1 to {GROUP_CHARS_MAX} printable characters and no blanks around them");
        return Err(Error::invalid("group", what));
    }
    Ok(())
}

/// 404 of a server that is not there.
pub(super) fn unknown_server() -> Error {
    Error::NotFound("Server not found".into())
}
