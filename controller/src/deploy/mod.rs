//! Git deployments: `/api/v1/jobs`, and what carries them to hosts.

mod logs;
pub mod model;
mod processes;
mod progress;
mod request;
mod routes;
mod runner;
mod secrets;
mod service;
mod ssh;
mod store;
mod text;

pub use routes::routes;
pub use service::Jobs;
pub use store::ALL as STATEMENTS;
