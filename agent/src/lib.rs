//! The agent: verify, journal, run, report.
//!
//! A command's way: [`consume`] takes a message from the bus, [`verify`] believes it or not, [`journal`] keeps it,
//! [`execute`] runs it through [`run`], [`report`] tells the controller. [`work`] knows where each message stands.
//! `signet up` embeds all of it with [`run()`](fn@run).

mod agent;
pub mod config;
mod consume;
pub mod deploy;
mod drift;
mod execute;
mod heartbeat;
mod hello;
pub mod http;
pub mod identity;
pub mod join;
pub mod journal;
pub mod launch;
pub mod leave;
pub mod limits;
mod memory;
pub mod order;
pub mod policy;
mod processes;
mod pulse;
mod recover;
mod report;
mod retry;
pub mod run;
mod service;
pub mod session;
mod unit;
pub mod used;
pub mod verify;
pub mod work;

pub use config::AgentConfig;
pub use service::{own_user, run};
pub use session::BusSource;
