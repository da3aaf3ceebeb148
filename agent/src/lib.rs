//! The agent: verify, journal, run, report.

pub mod fault;
pub mod journal;
pub mod launch;
pub mod limits;
pub mod run;
