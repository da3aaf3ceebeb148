//! Whole agents against a small controller on the in-process bus.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod commands;
mod controller;
mod logs;
mod standing;
mod support;
