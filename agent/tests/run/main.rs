//! Real processes through [`signet_agent::run`], with the agent's own binary as launcher.
//!
//! Every test runs with process groups; `cgroups::everything_again` runs them all again with cgroups.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, also in its helpers")]

mod agents;
mod cgroups;
mod ending;
mod identity;
mod launcher;
mod output;
mod starting;
mod support;
