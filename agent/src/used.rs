//! Which approved statements were used here: one starts at most once on a host.
//!
//! A statement is used up when a message with it was accepted into the journal, whatever became of that message; one
//! that was refused uses nothing up. Its digest is a second id beside the message's own, known until the statement's
//! `not_after`. The journal holds whole messages, so it needs no record of its own for that.

use serde::Deserialize;
use signet_common::messages::base64_bytes;
use signet_common::statement::{Statement, StatementDigest};

/// One statement, as memory and journal know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// The first half of the digest. Who finds two texts that share it gets one of them refused, and nothing more.
    pub id: u128,
    /// The last second in which it could start something.
    pub not_after: i64,
}

impl Used {
    /// By these exact bytes.
    #[must_use]
    pub fn of(statement: &[u8]) -> Self {
        let digest = StatementDigest::of(statement);
        let id = digest.as_str().get(..32).and_then(|half| u128::from_str_radix(half, 16).ok());
        // What can't be read, an earlier version accepted: then it is known for ever.
        let not_after = Statement::parse(statement).map_or(i64::MAX, |statement| statement.not_after);
        Self { id: id.unwrap_or_default(), not_after }
    }

    /// By a whole message, if it carries an approval.
    #[must_use]
    pub fn by(message: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Message {
            approval: Option<Approval>,
        }
        #[derive(Deserialize)]
        struct Approval {
            #[serde(with = "base64_bytes")]
            statement: Vec<u8>,
        }
        let message: Message = serde_json::from_slice(message).ok()?;
        message.approval.map(|approval| Self::of(&approval.statement))
    }
}
