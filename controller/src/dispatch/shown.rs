//! What others show of messages, deliveries and reports, and what of them is not kept any longer than it is needed.

use signet_common::time::Micros;
use signet_common::{AgentId, TaskId};

use super::logs::Hold;
use super::service::Dispatch;
use super::standing::Standings;
use super::store::{self, OrphanRow};
use crate::error::Result;
use crate::limits::RETENTION_MESSAGES_MAX;

impl Standings {
    /// Whether nothing is sent to it until an admin accepts it.
    #[must_use]
    pub fn is_set_aside(&self) -> bool {
        self.hold == Hold::SetAside.as_str()
    }
}

impl Dispatch {
    /// A task's live sequence: everything up to it can be read from now on.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn live_seq(&self, task: &TaskId) -> Result<i64> {
        Ok(store::live_seq(self.store(), task).await?)
    }

    /// Reports of a host about messages that this database does not know, after this log and event.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn orphans(
        &self,
        agent: &AgentId,
        after: &(String, i64),
        limit: usize,
    ) -> Result<Vec<OrphanRow>> {
        Ok(store::orphans(self.store(), agent, after, limit).await?)
    }

    /// Where a page of orphans ends, if there are more behind it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn orphans_end(
        &self,
        agent: &AgentId,
        after: &(String, i64),
        limit: usize,
    ) -> Result<Option<(String, i64)>> {
        Ok(store::orphans_end(self.store(), agent, after, limit).await?)
    }

    /// How many events a host lost before they were taken in, and when it last said so; nothing when it lost none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn gaps(&self, agent: &AgentId) -> Result<Option<(i64, Micros)>> {
        Ok(store::gaps(self.store(), agent).await?)
    }

    /// Empties a few messages that nobody may start any more and whose tasks have ended: what stood in them (`env` and
    /// `stdin` may be secrets) is needed for nothing else. Says whether there is more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn forget_bodies(&self, now: Micros) -> Result<bool> {
        Ok(store::empty_messages(self.store(), now, RETENTION_MESSAGES_MAX).await? == RETENTION_MESSAGES_MAX)
    }
}
