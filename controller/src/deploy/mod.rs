//! Git deployments: `/api/v1/jobs`, and what carries them to hosts.

mod agents;
mod ask;
mod credentials;
mod ending;
mod held;
mod leases;
mod logs;
pub mod model;
mod outcomes;
mod pace;
mod processes;
mod progress;
mod remote;
mod request;
mod rollback;
mod rolling;
mod routes;
mod runner;
mod secrets;
mod service;
mod ssh;
mod store;
mod text;

pub use outcomes::DeployOutcomes;
pub use routes::routes;
pub use service::Jobs;
pub use store::ALL as STATEMENTS;
