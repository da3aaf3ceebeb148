//! The targets over SSH of a job, with how they are logged in to.

use std::collections::HashMap;

use crate::deploy::model::{Engine, Target};
use crate::deploy::secrets::Login;

/// A target over SSH: its row, its log-in and what the log calls it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) target: Target,
    pub(super) login: Login,
    pub(super) alias: String,
}

/// The targets over SSH with their log-ins, which stand in the same order.
pub(super) fn members(targets: Vec<Target>, logins: Vec<Login>) -> Vec<Member> {
    let over_ssh = targets.into_iter().filter(|t| t.engine == Engine::Ssh);
    let mut times: HashMap<String, usize> = HashMap::new();
    logins.iter().for_each(|login| *times.entry(login.host.to_ascii_lowercase()).or_default() += 1);
    let name = |login: &Login| match times.get(&login.host.to_ascii_lowercase()) {
        // Twice in one inventory: the port tells them apart, in a form that Ansible takes for a name.
        Some(n) if *n > 1 => format!("{}_{}", login.host, login.port),
        _ => login.host.clone(),
    };
    over_ssh.zip(logins).map(|(target, login)| Member { alias: name(&login), target, login }).collect()
}
