//! Servers, groups, enrolment, keys, heartbeats. `/api/servers`, `/api/client-keys`, `/api/agents`, `/api/keys`.

mod agents;
mod enrolment;
mod fleet_key;
mod heartbeats;
mod known_keys;
pub mod model;
mod routes;
mod service;
mod store;

pub use model::{Candidate, KeyStanding, Reachable, Target};
pub use routes::routes;
pub use service::Hosts;
pub use store::ALL as STATEMENTS;
