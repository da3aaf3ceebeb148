//! Git repositories: what opens them, and whose signature their deployments need.
//!
//! An entry is for one repository or for all below an address. Secrets lie sealed with the master key, bound to the entry
//! and its address, and are never shown.

mod address;
mod credential;
mod model;
mod routes;
mod service;
mod signers;
mod store;

pub use address::{same, strays};
pub use credential::{Credential, read as read_credential};
pub(crate) use routes::CredentialRequest;
pub use routes::routes;
pub use service::{Known, Repositories};
pub use signers::read as read_signers;
pub use store::ALL as STATEMENTS;
