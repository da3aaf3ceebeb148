//! The documents of the interface as test input, on both pairs of database and bus; and what they leave open.

#[path = "../support/mod.rs"]
mod support;

mod commands;
mod compare;
mod contract;
mod document;
mod fleet;
mod hosts;
mod keys;
mod lists;
mod openapi;
