//! The documents of the interface as test input, on both pairs of database and bus; and what they leave open.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what goes wrong fails the test")]

#[path = "../support/mod.rs"]
mod support;

mod commands;
mod compare;
mod contract;
mod document;
mod fleet;
mod hosts;
mod jobs;
mod keys;
mod lists;
mod logins;
mod openapi;
mod proxies;
mod sections;
mod users;
