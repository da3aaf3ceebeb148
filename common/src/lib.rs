//! What controller and agent must agree on: ids, keys, the signed envelope, the messages, the event chain and the bus.
//!
//! Nothing in here knows a database, an HTTP server or a process to run. `docs/wire-format.md` describes the same
//! things for readers who write their own client.

pub mod allowed_signers;
pub mod bundle;
pub mod bus;
pub mod chain;
pub mod deploy;
pub mod envelope;
pub mod fault;
pub mod glob;
pub mod ids;
pub mod join;
pub mod keyring;
pub mod keys;
pub mod limits;
pub mod messages;
pub mod seal;
pub mod sshsig;
pub mod statement;
pub mod strict;
pub mod time;
pub mod tls;
pub mod trail;

pub use envelope::{Envelope, PayloadType, Verified};
pub use ids::{AgentId, Hostname, Jti, KeyId, LogId, StartId, TaskId};
pub use keys::{PublicKey, SigningKey};
