//! The five documents as test input, on both pairs of database and bus.

#[path = "../support/mod.rs"]
mod support;

mod agent;
