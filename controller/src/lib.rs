//! The controller: it owns the HTTP API and the state, and publishes signed messages to agents.
//!
//! Each folder is a vertical slice; `docs/architecture.md` shows what each may import and walks one command through.

pub mod error;
pub mod limits;
pub mod store;
