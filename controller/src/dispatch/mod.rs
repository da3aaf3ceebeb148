//! Messages and deliveries: outbox, reconciler, intake. The only code that talks to the bus.
//!
//! What is wanted stands in the database; the reconciler compares it with what the agents last said and publishes the
//! difference. A slice calls [`Dispatch::send`] inside its own transaction and registers an [`Outcomes`] handler, which
//! runs inside the transaction that stores an outcome.

mod drafts;
mod ending;
mod gate;
mod heartbeats;
mod held;
mod inbox;
mod intake;
mod keyrings;
pub mod logs;
pub mod model;
mod outbox;
mod reconciler;
mod release;
mod rolling;
mod send;
mod service;
mod shown;
mod standing;
mod store;
mod tasks;

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use signet_common::messages::{CommandResult, Stream};
use signet_common::{Hostname, TaskId};

pub use drafts::Drafts;
pub use held::{Approved, Held, HeldTask};
pub use rolling::{BatchSize, Between, Brake, Rolling};
pub use send::{Audience, Body, MessageClaims, Order, Sent};
pub use service::Dispatch;
pub use standing::{HelloAnswer, Standings};
pub use store::ALL as STATEMENTS;
pub use store::{OrphanRow, Stored};
pub use tasks::{Tallies, Target, held_among, tallies, targets};

use crate::error::Result;
use crate::store::Tx;

/// What a dispatch carries, and so who hears of its outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A command of the fleet surface.
    Command,
    /// A git deployment.
    Deploy,
}

impl Kind {
    /// As in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Deploy => "deploy",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = String;
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        [Self::Command, Self::Deploy]
            .into_iter()
            .find(|k| k.as_str() == text)
            .ok_or_else(|| format!("unknown kind {text}"))
    }
}

/// Something that a slice has to store for one host of one of its tasks.
#[derive(Debug, Clone)]
pub struct Happened {
    /// The task or job.
    pub task_id: TaskId,
    /// The host.
    pub hostname: Hostname,
    /// The task's live sequence for this change.
    pub live_seq: i64,
    /// What.
    pub what: What,
}

/// What happened, as far as a slice must store it. States are the deliveries' own.
#[derive(Debug, Clone)]
pub enum What {
    /// A piece of output.
    Output {
        /// Which stream.
        stream: Stream,
        /// The offset of the piece.
        offset: u64,
        /// The bytes.
        data: Vec<u8>,
    },
    /// The agent's own word on how it ended.
    Result(Box<CommandResult>),
    /// The agent's own word that it does not do it, and why.
    Refused(String),
    /// It ended without a word of the agent's: expired, cancelled, lost, never sent.
    Ended,
}

/// What a slice does with outcomes, inside the transaction that stores them.
#[async_trait]
pub trait Outcomes: Send + Sync + 'static {
    /// Stores its part. May be called again for the same outcome, after a rollback.
    async fn store(&self, tx: &mut Tx, happened: &[Happened]) -> Result<()>;
    /// Takes note of what happens between two batches.
    async fn between(&self, _: &mut Tx, _: &TaskId, _: &Between) -> Result<()> {
        Ok(())
    }
    /// Forgets what belongs to tasks that are past their retention.
    async fn forget(&self, tx: &mut Tx, tasks: &[TaskId]) -> Result<()>;
}
