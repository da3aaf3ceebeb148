//! Messages that are signed before the transaction that sends them. A thousand hosts that get one each are a second of work,
//! and for what the transaction has locked others would wait meanwhile.

use std::collections::{HashMap, HashSet};

use signet_common::envelope::PayloadType;
use signet_common::time::Micros;
use signet_common::{AgentId, Jti, LogId};

use super::gate::Gate;
use super::send::{self, Body};
use super::service::Dispatch;
use super::store::{self, Message, Stored};
use crate::error::{Error, Result};
use crate::store::Tx;

/// Messages for one host each. They count only if the transaction that sends them finds the same signing key, and the host
/// with the same log: one that begins a new log refuses what was issued before.
#[derive(Clone)]
pub struct Drafts {
    /// The keyring's version.
    version: u64,
    messages: HashMap<AgentId, (Option<LogId>, Message)>,
}

impl std::fmt::Debug for Drafts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Drafts({})", self.messages.len())
    }
}

impl Drafts {
    /// Whether there is one for this host.
    #[must_use]
    pub fn has(&self, agent: &AgentId) -> bool {
        self.messages.contains_key(agent)
    }

    /// Those for these hosts.
    #[must_use]
    pub fn among(&self, agents: &HashSet<AgentId>) -> Self {
        let ours = self.messages.iter().filter(|(agent, _)| agents.contains(agent));
        Self { version: self.version, messages: ours.map(|(a, m)| (a.clone(), m.clone())).collect() }
    }
}

impl Dispatch {
    /// Signs a message for each of these hosts alone, for an [`Order`](send::Order) with the same payload, body and
    /// `expires_in`.
    ///
    /// # Errors
    /// When the keys are not there yet, or the database fails.
    pub async fn draft(
        &self,
        payload_type: PayloadType,
        expires_in: u32,
        agents: Vec<AgentId>,
        body: &Body,
    ) -> Result<Drafts> {
        let mut logs = store::cursors(self.store(), &agents).await?;
        // After the logs are known: with another log, the host's row tells it.
        let now = Micros::now();
        let window = (now.seconds(), now.plus_seconds(i64::from(expires_in)).seconds());
        let (keys, body) = (self.keys().fleet()?, body.clone());
        let version = keys.version();
        let one = move |agent: AgentId| {
            let audience = (Jti::generate(), vec![agent.clone()]);
            let log = match logs.remove(&agent) {
                // Until the host's first event came, the same log may begin again, and refuses what was issued before that.
                Some(row) if row.cursor.seq == 0 => return None,
                row => row.map(|row| row.cursor.log_id),
            };
            // What fails is tried again by who sends, and fails there.
            let message = send::message(keys.signing(), payload_type, window, audience, &body).ok()?;
            Some((agent, (log, message)))
        };
        let signing = tokio::task::spawn_blocking(move || agents.into_iter().filter_map(one).collect());
        Ok(Drafts { version, messages: signing.await.map_err(|e| Error::Internal(e.to_string()))? })
    }

    /// Gives those drafts that still count, and names them in the deliveries that are open.
    pub(super) async fn adopt(
        &self,
        tx: &mut Tx,
        drafts: &Drafts,
        gate: &Gate,
        deliveries: &mut [Stored],
    ) -> Result<Vec<Message>> {
        if drafts.version != gate.keys.version() {
            return Ok(Vec::new());
        }
        let agents: Vec<AgentId> = drafts.messages.keys().cloned().collect();
        let logs = store::cursors(&mut *tx, &agents).await?;
        let mut adopted = Vec::new();
        for delivery in deliveries.iter_mut().filter(|d| !d.delivery.state.is_final()) {
            let Some(agent) = &delivery.agent_id else { continue };
            let Some((log, message)) = drafts.messages.get(agent) else { continue };
            if logs.get(agent).map(|row| &row.cursor.log_id) == log.as_ref() {
                delivery.jti = Some(message.jti.clone());
                adopted.push(message.clone());
            }
        }
        Ok(adopted)
    }
}
