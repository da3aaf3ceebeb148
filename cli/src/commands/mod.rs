//! One file for each subcommand.

pub(crate) mod agents;
pub(crate) mod approval_rules;
pub(crate) mod approvals;
pub(crate) mod approver_keys;
pub(crate) mod audit;
pub(crate) mod cancel;
pub(crate) mod completions;
pub(crate) mod deploy;
pub(crate) mod deployments;
pub(crate) mod doctor;
pub(crate) mod first_command;
pub(crate) mod job;
pub(crate) mod join_command;
pub(crate) mod keys;
pub(crate) mod keys_rotation;
pub(crate) mod output;
pub(crate) mod pause;
pub(crate) mod results;
pub(crate) mod run;
pub(crate) mod servers;
pub(crate) mod target;
pub(crate) mod task;
pub(crate) mod tasks;
pub(crate) mod up;
pub(crate) mod verify;
pub(crate) mod watch;
