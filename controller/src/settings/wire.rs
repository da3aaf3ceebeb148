//! What may go over the wire in plain, and how much of it.

use crate::limits::{ADDRESS_REQUESTS_PER_SECOND, REQUESTS_PER_SECOND};

/// What may go over the wire in plain beyond this machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AllowPlain {
    /// Requests to this controller.
    pub http: bool,
    /// What goes to the broker and its management API.
    pub amqp: bool,
}

/// How many requests are answered each second, with bursts of two seconds' worth; 0 = any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Of one token or log-in.
    pub caller: u32,
    /// From one address.
    pub address: u32,
}

impl Default for Rates {
    fn default() -> Self {
        Self { caller: REQUESTS_PER_SECOND, address: ADDRESS_REQUESTS_PER_SECOND }
    }
}
