//! The engine "ssh": real `ansible-playbook`, with files of its own for each run and nothing that outlives it.

mod files;
mod keys;
mod members;
mod playbook;
mod progress;
mod results;

pub(super) use files::{RunDir, tidy};

use std::collections::HashMap;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use signet_common::time::Micros;

use self::files::Host;
use self::members::{Member, members};
use self::playbook::Wave;
use self::progress::{Line, Progress};
use super::model::{End, Engine, Happening, HostKeyPolicy, Job, Target, TargetStatus};
use super::outcomes::word;
use super::pace;
use super::remote;
use super::rolling::{said, turns};
use super::secrets::{self, Login};
use super::service::Jobs;
use super::stop::Stop;
use super::store::{NewLine, line};
use super::text::{self, fatal, heading};
use crate::dispatch::{Between, Brake, Rolling};
use crate::error::{Error, Result};
use crate::limits::KEYS_AT_ONCE;

/// Runs a job's targets over SSH to their ends, wave by wave. What has no end afterwards is the caller's to end.
///
/// # Errors
/// When the database fails, or the run's files can't be written.
pub(super) async fn run(
    jobs: &Jobs,
    job: &Job,
    targets: Vec<Target>,
    logins: Vec<Login>,
    stop: &Stop,
) -> Result<()> {
    let barred = || jobs.barred_over_ssh(&job.plan, &targets);
    let Some(barred) = pace::again(job.id, stop, barred).await? else { return Ok(()) };
    if let Some(why) = barred {
        return refused(jobs, job, &targets, why).await;
    }
    let Some(version) = pace::again(job.id, stop, || version(jobs, job, &targets)).await? else {
        return Ok(());
    };
    let dir = match RunDir::make(job.id) {
        Ok(dir) => dir,
        Err(error) => return refused(jobs, job, &targets, &no_place(&error)).await,
    };
    let telltales = secrets::telltales(&logins);
    let members = members(targets, logins);
    let progress = Progress::new(jobs, job.id, &members, telltales);
    dir.prepare(&job.plan, &version, &jobs.rules().protocols_for_git()).map_err(files)?;
    let run = Run { jobs, job, dir: &dir, progress: &progress, members: &members, stop };
    let mut recap = Vec::new();
    let done = run.waves(&mut recap).await;
    if !recap.is_empty() {
        let heading = [(None, String::new()), (None, heading("PLAY RECAP"))];
        progress.lines(heading.into_iter().chain(recap).collect()).await?;
    }
    done
}

/// What Ansible is to check out. Without a name it would take the branch on which the working tree stands, and where an agent
/// deployed before it stands on none. Where the controller may not read the repository, that has to do.
async fn version(jobs: &Jobs, job: &Job, targets: &[Target]) -> Result<String> {
    if let Some(named) = job.plan.version() {
        return Ok(named.to_owned());
    }
    let access = jobs.access(job).await?.unwrap_or_default();
    let credential = access.credential.as_ref();
    let found = if targets.iter().any(|target| target.engine == Engine::Agent) {
        // Agents and Ansible bring the same.
        match remote::commit(jobs, job, credential).await {
            Ok(commit) => Ok(jobs.put_commit(job.id, &commit).await?.to_string()),
            Err(why) => Err(why),
        }
    } else {
        remote::default_branch(jobs, job, credential).await.map(|branch| branch.to_string())
    };
    match found {
        Ok(version) => Ok(version),
        Err(why) => {
            let text = format!("[WARNING]: the controller can't tell the repository's default branch: {why}");
            jobs.record(job.id, &[line(None, text)], &[]).await?;
            Ok("HEAD".into())
        }
    }
}

/// Ends every target over SSH, before anything was done.
async fn refused(jobs: &Jobs, job: &Job, targets: &[Target], why: &str) -> Result<()> {
    let end = End::bad(TargetStatus::Failed, text::reason(why));
    let (mut lines, mut ends) = (Vec::new(), Vec::new());
    for target in targets.iter().filter(|t| t.engine == Engine::Ssh && !t.standing.status.is_final()) {
        let line = fatal(&target.host, false, &end.reason);
        lines.push(NewLine { at: Micros::now(), host: Some(target.host.clone()), line });
        ends.push((target.ordinal, Happening::Ended(end.clone())));
    }
    jobs.record(job.id, &lines, &ends).await.map(drop)
}

/// In words for people.
pub(super) fn no_place(error: &std::io::Error) -> String {
    format!("no place in memory for what the job logs in with: {error}")
}

fn files(error: std::io::Error) -> Error {
    Error::Internal(format!("a job's files: {error}"))
}

/// A job over SSH that is under way.
struct Run<'a> {
    jobs: &'a Jobs,
    job: &'a Job,
    dir: &'a RunDir,
    progress: &'a Progress<'a>,
    members: &'a [Member],
    stop: &'a Stop,
}

impl Run<'_> {
    /// One wave after another, until something speaks against going on. Collects the recap.
    async fn waves(&self, recap: &mut Vec<Line>) -> Result<()> {
        let hosts: Vec<&str> = self.members.iter().map(|m| m.login.host.as_str()).collect();
        let turns = turns(&self.job.plan, Engine::Ssh, &hosts, fastrand::shuffle);
        let mut done = 0;
        for (number, size) in turns.rolling.sizes(hosts.len()).into_iter().enumerate() {
            if number > 0 && self.stop.reason().is_none() {
                let (gone, left) = turns.order.split_at(done);
                if let Some(by) = self.brake(&turns.rolling, gone).await? {
                    return self.skip(left, by, recap).await;
                }
                self.pause(turns.rolling.pause).await?;
            }
            if self.stop.reason().is_some() {
                break;
            }
            recap.extend(self.wave(number, &turns.order[done..done + size]).await?);
            done += size;
        }
        Ok(())
    }

    /// What speaks against another wave, after these.
    async fn brake(&self, rolling: &Rolling, gone: &[usize]) -> Result<Option<Brake>> {
        let targets = self.jobs.targets(self.job.id).await?;
        let standing: HashMap<i64, TargetStatus> =
            targets.into_iter().map(|t| (t.ordinal, t.standing.status)).collect();
        let bad = |member: &&Member| {
            let status = standing.get(&member.target.ordinal);
            status.is_some_and(|status| status.is_final() && *status != TargetStatus::Success)
        };
        let gone: Vec<&Member> = gone.iter().map(|at| &self.members[*at]).collect();
        let canaries = gone.iter().take(rolling.canary).copied().filter(bad);
        let canaries = canaries.map(|member| member.alias.clone()).collect();
        let failed = gone.iter().copied().filter(bad).count() as u64;
        Ok(Brake::of(canaries, failed, rolling.max_failures.map(u64::from)))
    }

    /// Leaves these out.
    async fn skip(&self, left: &[usize], by: Brake, recap: &mut Vec<Line>) -> Result<()> {
        let end = End::bad(TargetStatus::Skipped, by.as_str());
        let said = said(&Between::Stopped { by, left: left.len() });
        let left: Vec<&Member> = left.iter().map(|at| &self.members[*at]).collect();
        let named = |m: &&Member| (Some(m.alias.clone()), word(&m.alias, &end));
        let lines = std::iter::once((None, said.clone())).chain(left.iter().map(named)).collect();
        self.progress.lines(lines).await?;
        let ended = |m: &&Member| (m.target.ordinal, Happening::Ended(end.clone()));
        self.progress.targets(left.iter().map(ended).collect()).await?;
        recap.extend(left.iter().map(|m| (Some(m.alias.clone()), text::recap(&m.alias, [0, 0, 0, 0, 1]))));
        self.jobs.put_reason(self.job.id, &said).await
    }

    /// Waits before the next wave. What runs over SSH ends with its controller, and so does this.
    async fn pause(&self, seconds: u32) -> Result<()> {
        if seconds > 0 {
            self.progress.lines(vec![(None, said(&Between::Pause(seconds.into())))]).await?;
            tokio::select! {
                () = self.stop.stopped() => {}
                () = tokio::time::sleep(Duration::from_secs(seconds.into())) => {}
            }
        }
        Ok(())
    }

    /// One run of the playbook, for these members; gives its recap.
    async fn wave(&self, number: usize, members: &[usize]) -> Result<Vec<Line>> {
        let opening: Vec<_> =
            members.iter().map(|at| keys::open(self.dir, *at, &self.members[*at].login, self.stop)).collect();
        let opened: Vec<_> = stream::iter(opening).buffered(KEYS_AT_ONCE).collect().await;
        let (mut early, mut ended, mut ready) = (Vec::new(), Vec::new(), Vec::new());
        for (at, opened) in members.iter().zip(opened) {
            let member = &self.members[*at];
            match opened {
                Ok(()) => ready.push((*at, member)),
                Err(why) => {
                    early.push((member.alias.clone(), fatal(&member.alias, false, &why)));
                    let end = End::bad(TargetStatus::Failed, why);
                    ended.push((member.target.ordinal, Happening::Ended(end)));
                }
            }
        }
        self.progress.targets(ended).await?;
        if ready.is_empty() {
            return nobody(self.progress, early).await;
        }
        let pinned = pins(self.jobs, ready.iter().map(|(_, member)| *member)).await?;
        let key = |member: &Member| {
            pinned.get(&(member.login.host.to_ascii_lowercase(), member.login.port)).map(String::as_str)
        };
        let hosts: Vec<Host<'_>> = ready
            .iter()
            .map(|(at, m)| Host { alias: &m.alias, index: *at, login: &m.login, pinned: key(m) })
            .collect();
        let policy = self.job.plan.options.host_key_policy;
        files::inventory(self.dir, number, &hosts, policy).map_err(files)?;
        let wave = Wave { number, hosts: hosts.iter().map(|host| host.alias).collect(), early };
        let ended = playbook::run(self.jobs, self.job, self.dir, self.progress, &wave, self.stop).await;
        if policy == HostKeyPolicy::Pin {
            pin(self.jobs, self.job, self.dir, &hosts).await?;
        }
        ended
    }
}

/// The log of a wave in which no host could even be tried; gives its recap.
async fn nobody(progress: &Progress<'_>, early: Vec<(String, String)>) -> Result<Vec<Line>> {
    let mut lines = vec![(None, heading("PLAY [all]")), (None, heading("TASK [git]"))];
    let hosts: Vec<String> = early.iter().map(|(host, _)| host.clone()).collect();
    lines.extend(early.into_iter().map(|(host, line)| (Some(host), line)));
    progress.lines(lines).await?;
    Ok(hosts.into_iter().map(|host| (Some(host.clone()), text::recap(&host, [0, 0, 0, 1, 0]))).collect())
}

/// Pinned keys by host and port.
async fn pins(jobs: &Jobs, members: impl Iterator<Item = &Member>) -> Result<HashMap<(String, u16), String>> {
    let hosts = members.map(|m| m.login.host.to_ascii_lowercase()).collect();
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
