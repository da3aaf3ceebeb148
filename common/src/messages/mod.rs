//! Every payload of the wire, field by field. Names are those of the HTTP API.
//!
//! Types that agents read refuse unknown fields (`rejected: unsupported`); types that the controller reads ignore them,
//! so that a newer agent can work with an older controller of the same minor version.

pub mod base64_bytes;
mod heartbeat;
mod hello;
mod orders;
mod reports;

pub use self::heartbeat::{BusyReason, Heartbeat, Isolation};
pub use self::hello::{Hello, Leave, Standing, Welcome};
pub use self::orders::{Cancel, Command, KeyringPush, Resume};
pub use self::reports::{CommandResult, Event, Outcome, Rejection, Report, Stream, StreamSummary};

/// What this version of the agent understands, as named in heartbeats. Hosts are not sent what they don't list.
pub const FEATURES: &[&str] = &[
    "command",
    "argv",
    "env",
    "cwd",
    "stdin",
    "output_limit",
    "detached",
    "resume",
    "keyring",
    "approval",
    "deploy",
];
