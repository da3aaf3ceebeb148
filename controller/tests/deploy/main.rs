//! Deployments over SSH, with the real Ansible, OpenSSH and git.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what goes wrong fails the test")]

#[path = "../support/mod.rs"]
mod support;

mod agents;
#[allow(dead_code, reason = "not all of it is of use here")]
#[path = "../../../agent/tests/deploy/backend.rs"]
mod backend;

mod drift;
mod hosts;
mod kept;
mod killed;
mod leases;
mod many;
mod repositories;
mod rolling;
mod secrets;
mod site;
mod slots;
