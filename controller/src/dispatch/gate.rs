//! What holds `command` and `deploy` for every host, and what signs them: read in the transaction that sends.

use std::sync::Arc;

use serde_json::json;
use signet_common::AgentId;
use signet_common::time::Micros;

use super::service::Dispatch;
use super::store;
use crate::audit::{self, Action, Author, Note};
use crate::error::Result;
use crate::hosts::Reachable;
use crate::keys::FleetKeys;
use crate::store::{Tx, in_transaction};

/// The pause switch: who paused it and why, or empty.
pub(super) const PAUSED: &str = "dispatch_paused";
/// Why the keyring in the database can't be the newest, or empty.
pub(super) const KEYRING_OLD: &str = "keyring_old";

/// What one transaction may send.
pub(super) struct Gate {
    /// What signs, and the keyring that a host must hold.
    pub(super) keys: Arc<FleetKeys>,
    /// Whether nothing is held.
    pub(super) open: bool,
}

impl Gate {
    /// The agent, if a `command` or `deploy` may go to it now as far as its heartbeats tell.
    pub(super) fn able(&self, agent: &Reachable, now: Micros) -> Option<AgentId> {
        (self.open && agent.may_receive(now, self.keys.version())).then(|| agent.agent_id.clone())
    }
}

impl Dispatch {
    /// What may be sent, as this transaction sees it.
    pub(super) async fn gate(&self, tx: &mut Tx) -> Result<Gate> {
        let row = store::gate(tx).await?;
        let keys = self.keys().at_least(tx, row.keyring()).await?;
        Ok(Gate { keys, open: row.paused.is_empty() && row.keyring_old.is_empty() })
    }

    /// Who paused dispatch of `command` and `deploy` for the whole installation, and why.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn paused(&self) -> Result<Option<String>> {
        Ok(store::setting(self.store(), PAUSED).await?.filter(|v| !v.is_empty()))
    }

    /// Why nothing is sent although nobody paused it: hosts hold a newer keyring than the database.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn keyring_old(&self) -> Result<Option<String>> {
        Ok(store::setting(self.store(), KEYRING_OLD).await?.filter(|v| !v.is_empty()))
    }

    /// Why nothing is sent to any host, whoever holds it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn held(&self) -> Result<Option<String>> {
        match self.keyring_old().await? {
            None => self.paused().await,
            old => Ok(old),
        }
    }

    /// Switches dispatch off, with a text that says who and why, or on again.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_paused(&self, by: &Author, paused: Option<&str>) -> Result<()> {
        let now = Micros::now();
        in_transaction!(self.store(), |tx| -> Result<()> {
            store::put_setting(tx, PAUSED, paused.unwrap_or_default(), now).await?;
            let action = if paused.is_some() { Action::DispatchPause } else { Action::DispatchResume };
            let note = Note::of(action, "dispatch").new(json!({ "reason": paused }));
            Ok(audit::note(tx, by, note).await?)
        })?;
        self.wake().notify_one();
        Ok(())
    }

    pub(super) async fn put_setting(&self, name: &str, value: &str) -> Result<()> {
        let now = Micros::now();
        in_transaction!(self.store(), |tx| -> Result<()> {
            Ok(store::put_setting(tx, name, value, now).await?)
        })
    }
}
