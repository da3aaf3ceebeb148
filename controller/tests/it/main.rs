//! The controller as a whole, on both pairs of database and bus.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what goes wrong fails the test")]

mod documents;
mod layers;
mod moments;
mod statements;
#[path = "../support/mod.rs"]
mod support;
