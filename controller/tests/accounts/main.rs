//! Accounts: what goes wrong for who has no right to it, each beside a twin that succeeds; and who may do what.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what goes wrong fails the test")]

#[path = "../support/mod.rs"]
mod support;

mod approvals;
mod deploying;
mod logins;
mod permissions;
mod scopes;
mod tokens;
mod trail;
mod users;
mod visitor;
