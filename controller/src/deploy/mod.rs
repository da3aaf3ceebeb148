//! Git deployments: `/api/v1/jobs`, and what carries them to hosts.

mod agents;
mod ask;
mod credentials;
mod deployments;
mod ending;
mod held;
mod host_key_store;
mod host_keys;
mod lease_store;
mod leases;
mod logs;
pub mod model;
mod outcomes;
mod pace;
mod places;
mod processes;
mod progress;
mod remote;
mod request;
mod rollback;
mod rolling;
mod routes;
mod runner;
mod secrets;
mod seen;
mod service;
mod ssh;
mod store;
mod text;
mod views;

pub use host_key_store::ALL as HOST_KEY_STATEMENTS;
pub use lease_store::ALL as LEASE_STATEMENTS;
pub use outcomes::DeployOutcomes;
pub use routes::routes;
pub use service::Jobs;
pub use store::ALL as STATEMENTS;
