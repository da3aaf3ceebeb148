//! Hosts as others see them: servers, agents' keys, and how reachable an agent is.

use signet_common::time::Micros;
use signet_common::{AgentId, Hostname, PublicKey};

/// Which hosts are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Every server.
    All,
    /// One server.
    Node(Hostname),
    /// These servers, in this order.
    Nodes(Vec<Hostname>),
    /// All of a group.
    Group(String),
    /// All with this label.
    Label {
        /// The label's name.
        name: String,
        /// Its value.
        value: String,
    },
}

/// Whose word a key's signature is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyStanding {
    /// It belongs to its hostname.
    Accepted,
    /// An admin has to compare fingerprints first.
    Pending,
    /// Another key took its hostname; its reports on what was issued before still count.
    Replaced,
    /// Nothing it says counts.
    Revoked,
}

impl KeyStanding {
    /// Every standing.
    pub const ALL: [Self; 4] = [Self::Accepted, Self::Pending, Self::Replaced, Self::Revoked];

    /// As on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Pending => "pending",
            Self::Replaced => "replaced",
            Self::Revoked => "revoked",
        }
    }

    /// From the database or a query.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }

    /// Whether reports and heartbeats with this key are believed.
    #[must_use]
    pub const fn is_heard(self) -> bool {
        matches!(self, Self::Accepted | Self::Replaced)
    }
}

/// A server without a heartbeat for this long, in seconds, is offline: three heartbeats were missed.
pub const ONLINE_SECONDS: i64 = 3 * signet_common::limits::HEARTBEAT_SECONDS as i64;

/// What an agent's heartbeats tell about what may be sent to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Reachable {
    /// The agent.
    pub agent_id: AgentId,
    /// Whether its key is the accepted one of its hostname.
    pub accepted: bool,
    /// When the last heartbeat came, by the controller's clock.
    pub last_heartbeat: Option<Micros>,
    /// It said that it stops.
    pub stopping: bool,
    /// How far its clock is ahead of the controller's.
    pub clock_offset_ms: i64,
    /// Why it takes no work.
    pub busy: Option<String>,
    /// The newest keyring that it holds.
    pub keyring: u64,
    /// What it understands; unknown before the first heartbeat.
    pub features: Option<Vec<String>>,
}

impl Reachable {
    /// Whether it is there.
    #[must_use]
    pub fn online(&self, now: Micros) -> bool {
        !self.stopping && self.last_heartbeat.is_some_and(|at| at.plus_seconds(ONLINE_SECONDS) > now)
    }

    /// Whether its clock is within what a `command` or `deploy` needs.
    #[must_use]
    pub fn clock_ok(&self) -> bool {
        self.clock_offset_ms.abs() <= signet_common::limits::CLOCK_SKEW_SECONDS_MAX * 1_000
    }

    /// Whether a `command` or `deploy` may go to it now, with this keyring being the newest. One that holds a newer keyring
    /// than that believes nothing that is signed here.
    #[must_use]
    pub fn may_receive(&self, now: Micros, keyring: u64) -> bool {
        self.accepted && self.online(now) && self.clock_ok() && self.busy.is_none() && self.keyring == keyring
    }
}

/// A target of a task: a server, and its agent if it has one.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The server.
    pub hostname: Hostname,
    /// Its group.
    pub group: String,
    /// Its accepted agent.
    pub agent: Option<Reachable>,
}

/// A key that the controller knows.
#[derive(Debug, Clone)]
pub struct KnownKey {
    /// The key.
    pub key: PublicKey,
    /// Whose word it is.
    pub standing: KeyStanding,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_goes_to_who_is_there_on_time_and_able() {
        let now = Micros::from_seconds(1_000);
        let good = Reachable {
            agent_id: "a".repeat(40).parse().unwrap(),
            accepted: true,
            last_heartbeat: Some(now.plus_seconds(-29)),
            stopping: false,
            clock_offset_ms: -60_000,
            busy: None,
            keyring: 2,
            features: None,
        };
        assert!(good.may_receive(now, 2));
        for bad in [
            Reachable { accepted: false, ..good.clone() },
            Reachable { last_heartbeat: Some(now.plus_seconds(-30)), ..good.clone() },
            Reachable { last_heartbeat: None, ..good.clone() },
            Reachable { stopping: true, ..good.clone() },
            Reachable { clock_offset_ms: 60_001, ..good.clone() },
            Reachable { busy: Some("disk_full".into()), ..good.clone() },
            Reachable { keyring: 1, ..good.clone() },
            Reachable { keyring: 3, ..good.clone() },
        ] {
            assert!(!bad.may_receive(now, 2), "{bad:?}");
        }
    }
}
