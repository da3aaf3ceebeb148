//! The agent: verify, journal, run, report.

pub mod launch;
pub mod limits;
pub mod run;
