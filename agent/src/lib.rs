//! The agent: verify, journal, run, report.

pub mod config;
pub mod fault;
pub mod identity;
pub mod journal;
pub mod launch;
pub mod limits;
pub mod policy;
pub mod run;
pub mod verify;
pub mod work;
