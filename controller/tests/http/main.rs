//! The HTTP surface over the wire: dialects, order of checks, documentation, listeners, keys, settings, and what happens
//! while the database is away.

#[allow(dead_code, reason = "shared with the other test program, which uses more of it")]
#[path = "../support/mod.rs"]
mod support;

mod away;
mod errors;
mod keys;
mod pages;
mod program;
