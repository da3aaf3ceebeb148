//! Whole agents against a small controller on the in-process bus.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod approvals;
#[path = "../deploy/backend.rs"]
mod backend;
mod commands;
mod controller;
mod deploys;
mod disk;
mod logs;
mod program;
mod standing;
mod support;
