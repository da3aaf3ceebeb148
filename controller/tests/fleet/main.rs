//! A fleet of true agents, each a process of its own, on RabbitMQ and MariaDB.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "code for tests alone: what goes wrong fails the test, with its reason"
)]

#[path = "../support/mod.rs"]
mod support;
#[allow(dead_code, reason = "not all of it is of use here")]
#[path = "../accounts/visitor.rs"]
mod visitor;

#[path = "../../../agent/tests/deploy/backend.rs"]
mod backend;

mod agent;
mod broker_users;
mod credentials;
mod deploys;
mod dying;
mod held_jobs;
mod hostile;
mod joining;
mod mariadb_rabbitmq;
mod rollbacks;
mod rotation;
