//! The controller: it owns the HTTP API and the state, and publishes signed messages to agents.
//!
//! Each folder is a vertical slice; `docs/architecture.md` shows what each may import and walks one command through.

pub mod accounts;
pub mod app;
pub mod approvals;
pub mod audit;
pub mod commands;
pub mod deploy;
pub mod dispatch;
pub mod error;
pub mod hosts;
pub mod http;
pub mod keys;
pub mod leases;
pub mod limits;
pub mod live;
pub mod logging;
pub mod loops;
pub mod network;
pub mod repositories;
mod retention;
mod running;
pub mod settings;
pub mod store;
mod tls;

pub use running::{Running, start, start_on};
