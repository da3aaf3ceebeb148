//! The controller as a whole, on both pairs of database and bus.

mod statements;
#[path = "../support/mod.rs"]
mod support;
