//! Servers, groups, enrolment, keys, heartbeats. `/api/servers`, `/api/client-keys`, `/api/agents`, `/api/keys`.

mod agents;
mod beat_store;
mod broker_users;
mod deployments;
mod enrolment;
mod fleet_key;
mod heartbeats;
mod join_store;
mod join_tokens;
mod known_keys;
mod leaving;
pub mod model;
mod routes;
mod sealing_keys;
mod service;
mod store;

pub use beat_store::ALL as BEAT_STATEMENTS;
pub(crate) use broker_users::run as tidy_broker_users;
pub use broker_users::{BrokerUsers, ManagementError};
pub use deployments::{ALL as DEPLOYMENT_STATEMENTS, Deployment, DeploymentFilter};
pub use join_store::ALL as JOIN_STATEMENTS;
pub use model::{Candidate, KeyStanding, Reachable, Target};
pub use routes::routes;
pub use sealing_keys::ALL as SEALING_STATEMENTS;
pub use service::Hosts;
pub use store::ALL as STATEMENTS;
