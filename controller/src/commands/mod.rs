//! Commands: tasks, targets, results. `/api/commands` and `/api/tasks`.

mod bundle;
mod events;
pub mod model;
mod outcomes;
mod output;
mod request;
mod results;
mod routes;
mod service;
mod status;
mod store;

pub use outcomes::CommandOutcomes;
pub use routes::routes;
pub use service::Commands;
pub use store::ALL as STATEMENTS;
