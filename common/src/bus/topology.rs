//! The queues' bounds, the same for both implementations. Tests make them small; nothing else changes them.

use std::time::Duration;

use crate::limits;

/// What the queues hold and for how long (DESIGN 4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// Time that a message may spend in an agent's queue.
    pub agent_ttl: Duration,
    /// Messages in an agent's queue; above it a publish is refused.
    pub agent_length: u32,
    /// Time that a heartbeat may wait.
    pub heartbeat_ttl: Duration,
    /// Bytes of heartbeats that wait; above it the oldest go.
    pub heartbeats_bytes: u64,
    /// Bytes of reports that wait; above it a publish is refused.
    pub reports_bytes: u64,
    /// Deliveries of one report before it goes to `signet.refused`.
    pub reports_delivery_limit: u32,
    /// Bytes that `signet.refused` keeps; above it the oldest go.
    pub refused_bytes: u64,
    /// Messages that wait for one controller in its share of `signet.live`; above it the oldest go.
    pub live_length: u32,
}

impl Default for Topology {
    fn default() -> Self {
        Self {
            agent_ttl: Duration::from_secs(limits::AGENT_QUEUE_TTL_SECONDS.into()),
            agent_length: limits::AGENT_QUEUE_LENGTH_MAX,
            heartbeat_ttl: Duration::from_secs(limits::HEARTBEAT_TTL_SECONDS.into()),
            heartbeats_bytes: limits::HEARTBEATS_QUEUE_BYTES_MAX,
            reports_bytes: limits::REPORTS_QUEUE_BYTES_MAX,
            reports_delivery_limit: limits::REPORTS_DELIVERY_LIMIT,
            refused_bytes: limits::REFUSED_QUEUE_BYTES_MAX,
            live_length: limits::LIVE_QUEUE_LENGTH_MAX,
        }
    }
}
