//! How an agent introduces itself, is answered, and takes its leave.

use serde::{Deserialize, Serialize};

use crate::chain::ChainHash;
use crate::ids::{AgentId, Hostname, Jti, LogId, StartId};

/// `hello`: an agent introduces itself. Signed with its own key, sent as DSSE JSON to `POST /api/agents/hello`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The agent's id.
    pub iss: String,
    /// `["controller"]`.
    pub aud: Vec<String>,
    /// The agent's clock; hello is never refused for it.
    pub iat: i64,
    /// The hello's own id.
    pub jti: Jti,
    /// The agent's public key in PEM: with it the signature is checked when the key is new.
    pub public_key: String,
    /// The name it asks for.
    pub hostname: Hostname,
    /// The group it asks for; counts at enrolment only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Fetched from `GET /api/agents/nonce` just before; counts once.
    pub controller_nonce: String,
    /// The agent's own; the answer repeats it.
    pub nonce: String,
    /// Public half of the agent's X25519 key in base64, to which the answer's secrets are sealed.
    pub sealing_key: String,
    /// Proof that it knows the join token; see [`crate::join`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<crate::join::JoinProof>,
    /// This start of the program.
    pub start_id: StartId,
    /// The journal.
    pub log_id: LogId,
    /// Its last synced event.
    pub head: u64,
    /// The chain at `head`.
    pub chain: ChainHash,
    /// Whether no hello of this journal was answered yet: everything issued before the answer is then refused.
    #[serde(default)]
    pub new_log: bool,
    /// The newest keyring that the agent holds; 0 = none.
    pub keyring: u64,
    /// The agent's version.
    pub version: String,
    /// What it understands.
    pub features: Vec<String>,
}

/// `leave`: an agent asks that its own key be revoked. Signed with that key, sent as DSSE JSON to
/// `POST /api/agents/leave`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leave {
    /// The agent's id.
    pub iss: String,
    /// `["controller"]`.
    pub aud: Vec<String>,
    /// The agent's clock; it is never refused for it.
    pub iat: i64,
    /// The message's own id.
    pub jti: Jti,
    /// The agent's public key in PEM, with which the signature is checked.
    pub public_key: String,
    /// Fetched from `GET /api/agents/nonce` just before; counts once.
    pub controller_nonce: String,
}

/// Where an agent stands with the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Its key belongs to its hostname.
    Accepted,
    /// An admin has to compare fingerprints first; it gets nothing until then.
    Pending,
    /// Its log does not fit what the controller knows; it gets no work until an admin accepts it.
    SetAside,
}

/// `welcome`: the controller's answer to a hello, as DSSE JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// `controller`.
    pub iss: String,
    /// The agent.
    pub aud: Vec<AgentId>,
    /// The controller's clock, whole seconds since 1970.
    pub iat: i64,
    /// The answer's own id; part of what seals [`Welcome::broker`].
    pub jti: Jti,
    /// The agent's nonce, repeated.
    pub nonce: String,
    /// Where the agent stands.
    pub standing: Standing,
    /// Why, when it is not accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The broker's address with credentials, sealed to the agent's key (see [`crate::seal`]). Absent when it gets none,
    /// or when the bus is the controller's own process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker: Option<crate::seal::Sealed>,
    /// The last event of the agent's log that the controller has; 0 = none.
    pub cursor: u64,
    /// The chain at `cursor`. Absent when the controller doesn't know this log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<ChainHash>,
    /// The agent must begin a new log before it takes anything.
    #[serde(default)]
    pub new_log: bool,
    /// The newest keyring's version.
    pub keyring: u64,
}
