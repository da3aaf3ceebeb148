//! The HTTP surface over the wire: dialects, order of checks, documentation, listeners, keys, settings, and what happens
//! while the database is away.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests: what goes wrong fails the test, with its reason"
)]

#[path = "../support/mod.rs"]
mod support;

mod away;
mod errors;
mod keys;
mod pages;
mod program;
mod rates;
mod tls;
