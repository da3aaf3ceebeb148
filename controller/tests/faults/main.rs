//! One test for each named point: a program dies there, is started again, and the promise holds.
//!
//! The points are those of `signet_common::fault`. A test fails when its point was never reached.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "code for tests alone: what goes wrong fails the test, with its reason"
)]

mod approvals;
mod broker;
mod jobs;
mod points;
mod programs;
mod world;
