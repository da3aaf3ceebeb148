//! The engine "ssh": real `ansible-playbook`, with files of its own for each run and nothing that outlives it.

mod files;
mod keys;
mod playbook;
mod results;

pub(super) use files::tidy;
pub(super) use results::Said;

use std::collections::HashMap;

use futures_util::{StreamExt as _, stream};

use self::files::{Host, RunDir};
use super::model::{Engine, Happening, HostKeyPolicy, Job, Target, TargetStatus};
use super::runner::Stop;
use super::secrets::{self, Login};
use super::service::Jobs;
use super::text::{fatal, heading, recap};
use super::{model::End, progress::Progress};
use crate::error::{Error, Result};
use crate::limits::KEYS_AT_ONCE;

/// A target over SSH: its row, its log-in and what the log calls it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) target: Target,
    pub(super) login: Login,
    pub(super) alias: String,
}

/// The targets over SSH with their log-ins, which stand in the same order.
fn members(targets: Vec<Target>, logins: Vec<Login>) -> Vec<Member> {
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

/// Runs a job's targets over SSH to their ends. What has no end afterwards is the caller's to end.
///
/// # Errors
/// When the database fails, or there is no place for the run's files.
pub(super) async fn run(
    jobs: &Jobs,
    job: &Job,
    targets: Vec<Target>,
    logins: Vec<Login>,
    stop: &Stop,
) -> Result<()> {
    let telltales = secrets::telltales(&logins);
    let members = members(targets, logins);
    let progress = Progress::new(jobs, job.id, &members, telltales);
    let files = |e: std::io::Error| Error::Internal(format!("a job's files: {e}"));
    let dir = RunDir::make(&jobs.rules().data_dir, job.id).map_err(files)?;
    dir.prepare(&job.plan, &jobs.rules().protocols_for_git()).map_err(files)?;

    let mut refused = Vec::new();
    let mut ready = Vec::new();
    let opening: Vec<_> =
        members.iter().enumerate().map(|(index, m)| keys::open(&dir, index, &m.login, stop)).collect();
    let opened: Vec<_> = stream::iter(opening).buffered(KEYS_AT_ONCE).collect().await;
    for ((index, member), opened) in members.iter().enumerate().zip(opened) {
        match opened {
            Ok(()) => ready.push((index, member)),
            Err(why) => refused.push((member, why)),
        }
    }
    let ended = refused.iter().map(|(member, why)| {
        let happening = Happening::Ended(End::bad(TargetStatus::Failed, why.as_str()));
        (member.target.ordinal, happening)
    });
    let early: Vec<(String, String)> =
        refused.iter().map(|(m, why)| (m.alias.clone(), fatal(&m.alias, false, why))).collect();
    progress.targets(ended.collect()).await?;
    if ready.is_empty() {
        return nobody(&progress, early).await;
    }
    let pinned = pins(jobs, &members).await?;
    let key = |member: &Member| {
        pinned.get(&(member.login.host.to_ascii_lowercase(), member.login.port)).map(String::as_str)
    };
    let hosts: Vec<Host<'_>> = ready
        .iter()
        .map(|(index, m)| Host { alias: &m.alias, index: *index, login: &m.login, pinned: key(m) })
        .collect();
    files::inventory(&dir, &hosts, job.plan.options.host_key_policy).map_err(files)?;
    let ended = playbook::run(jobs, job, &dir, &progress, &early, hosts.len(), stop).await;
    if job.plan.options.host_key_policy == HostKeyPolicy::Pin {
        pin(jobs, job, &dir, &hosts).await?;
    }
    ended
}

/// The log of a run in which no host could even be tried.
async fn nobody(progress: &Progress<'_>, early: Vec<(String, String)>) -> Result<()> {
    let mut lines = vec![(None, heading("PLAY [all]")), (None, heading("TASK [git]"))];
    let hosts: Vec<String> = early.iter().map(|(host, _)| host.clone()).collect();
    lines.extend(early.into_iter().map(|(host, line)| (Some(host), line)));
    lines.push((None, heading("PLAY RECAP")));
    lines.extend(hosts.into_iter().map(|host| (Some(host.clone()), recap(&host, [0, 0, 0, 1, 0]))));
    progress.lines(lines).await
}

/// Pinned keys by host and port.
async fn pins(jobs: &Jobs, members: &[Member]) -> Result<HashMap<(String, u16), String>> {
    let hosts = members.iter().map(|m| m.login.host.to_ascii_lowercase()).collect();
    let rows = super::host_key_store::host_keys(jobs.store(), hosts).await?;
    let keyed = |(host, port, key): (String, i64, String)| Some(((host, u16::try_from(port).ok()?), key));
    Ok(rows.into_iter().filter_map(keyed).collect())
}

/// Keeps the keys that hosts showed for the first time.
async fn pin(jobs: &Jobs, job: &Job, dir: &RunDir, hosts: &[Host<'_>]) -> Result<()> {
    let mut new = Vec::new();
    for host in hosts.iter().filter(|host| host.pinned.is_none()) {
        let text = std::fs::read_to_string(files::known_hosts(dir, host.index)).unwrap_or_default();
        new.extend(files::first_key(&text).map(|key| (host.login, key)));
    }
    if new.is_empty() { Ok(()) } else { jobs.pin(job, &new).await }
}
