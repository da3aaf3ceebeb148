//! Deployments of real repositories, by the driver as the agent starts it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod backend;
mod credentials;
mod faults;
mod hostile;
mod in_place;
mod narrowed;
mod releases;
mod signed;
mod told;
mod world;
