//! The engine "agent": one commit is pinned first, then every host gets it in a signed message. What becomes of it is told
//! by the deliveries and by [`super::outcomes`], so that any controller can go on where another stopped.

use std::collections::{BTreeSet, HashMap};
use std::process::Stdio;
use std::time::Duration;

use signet_common::deploy::{CommitId, Deploy, DeployPath, GitRef, GitUrl, Phase, Protocol, Strategy};
use signet_common::envelope::PayloadType;
use signet_common::limits::{EXPIRY_SECONDS_BATCH, EXPIRY_SECONDS_DEFAULT};
use signet_common::time::Micros;
use signet_common::{Hostname, TaskId};
use tokio::process::Command;

use super::model::{End, Engine, Happening, Job, RunMode, Target, TargetStatus, parse_id, shown};
use super::outcomes::word;
use super::request::batch_size;
use super::runner::{Reason, Stop};
use super::service::Jobs;
use super::store::{self, NewLine};
use super::text::{heading, reason, recap};
use crate::audit::Author;
use crate::dispatch::model::State;
use crate::dispatch::{self, BatchSize, Kind, MessageClaims, Order};
use crate::error::{Error, Result};
use crate::hosts::{self, Candidate};
use crate::limits::{
    AGENTS_LOOK_MILLISECONDS, AGENTS_LOOK_MILLISECONDS_MAX, LS_REMOTE_SECONDS_MAX, RESOLVE_SECONDS_MAX,
    TARGETS_SHOWN_MAX,
};
use crate::store::in_transaction;

/// Which of a job's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// To find out the commit.
    Resolve,
    /// To deploy it.
    Deploy,
}

const RESOLVE: &str = "-resolve";

fn task(job: i64, part: Part) -> Result<TaskId> {
    let suffix = if part == Part::Resolve { RESOLVE } else { "" };
    format!("{}{suffix}", shown(job)).parse().map_err(|_| Error::Internal("a job's task id".into()))
}

/// The job that a task belongs to.
pub(super) fn part(task: &TaskId) -> Option<(i64, Part)> {
    match task.as_str().strip_suffix(RESOLVE) {
        Some(job) => Some((parse_id(job)?, Part::Resolve)),
        None => Some((parse_id(task.as_str())?, Part::Deploy)),
    }
}

/// Brings a job's hosts with agents to their ends, or goes on with that. Returns early when the controller stops.
pub(super) async fn run(jobs: &Jobs, job: &Job, targets: &[Target], stop: &Stop) -> Result<()> {
    let ours: Vec<&Target> = targets.iter().filter(|t| t.engine == Engine::Agent).collect();
    if ours.is_empty() {
        return Ok(());
    }
    let main = task(job.id, Part::Deploy)?;
    if jobs.dispatch().targets(&main, 0, 1).await?.is_empty() {
        let begun = match pinned(jobs, job, &ours, stop).await? {
            Ok(commit) if stop.reason().is_none() => begin(jobs, job, &ours, &commit).await?,
            Ok(_) => Err("the job was ended before anything was sent".into()),
            Err(why) => Err(why),
        };
        match begun {
            // Whatever came up meanwhile: what was sent is followed.
            Ok(()) => {}
            Err(_) if stop.reason().is_some_and(|reason| reason != Reason::TimedOut) => return Ok(()),
            Err(why) => return all_fail(jobs, job, &ours, &why).await,
        }
    }
    follow(jobs, job, &main, &ours, stop).await
}

fn line(host: Option<&str>, line: String) -> NewLine {
    NewLine { at: Micros::now(), host: host.map(str::to_owned), line }
}

async fn all_fail(jobs: &Jobs, job: &Job, ours: &[&Target], why: &str) -> Result<()> {
    let end = End::bad(TargetStatus::Failed, why);
    let ends: Vec<_> = ours.iter().map(|t| (t.ordinal, Happening::Ended(end.clone()))).collect();
    let mut lines = vec![line(None, heading("PLAY [all]")), line(None, heading("TASK [git]"))];
    lines.extend(ours.iter().map(|t| line(Some(&t.host), word(&t.host, &end))));
    jobs.record(job.id, &lines, &ends).await?;
    close(jobs, job).await
}

/// The one commit of the job, or why there is none.
async fn pinned(
    jobs: &Jobs,
    job: &Job,
    ours: &[&Target],
    stop: &Stop,
) -> Result<std::result::Result<CommitId, String>> {
    let known = job.commit.as_deref().or(job.plan.git_branch.as_deref()).and_then(|text| text.parse().ok());
    if let Some(commit) = known {
        jobs.put_commit(job.id, &CommitId::to_string(&commit)).await?;
        return Ok(Ok(commit));
    }
    let said = match ls_remote(jobs, job).await {
        Ok(commit) => {
            jobs.put_commit(job.id, &commit.to_string()).await?;
            return Ok(Ok(commit));
        }
        Err(said) => said,
    };
    // The first host may be able to read what the controller can't.
    let resolving = task(job.id, Part::Resolve)?;
    if jobs.dispatch().targets(&resolving, 0, 1).await?.is_empty()
        && let Err(why) = send(jobs, job, &ours[..1], None).await?
    {
        return Ok(Err(why));
    }
    loop {
        let asked = jobs.dispatch().targets(&resolving, 0, 1).await?;
        let ended = asked.first().filter(|t| t.delivery.state.is_final());
        if let Some(ended) = ended {
            let found = jobs.job(job.id).await?.commit.and_then(|text| text.parse().ok());
            let host = &ended.hostname;
            let why = || {
                let told = if ended.delivery.reason.is_empty() {
                    said.clone()
                } else {
                    ended.delivery.reason.clone()
                };
                format!("neither the controller nor {host} could find the commit: {told}")
            };
            return Ok(found.ok_or_else(why));
        }
        if stop.reason().is_some() {
            return Ok(Err("the job was ended before its commit was known".into()));
        }
        tokio::time::sleep(Duration::from_millis(AGENTS_LOOK_MILLISECONDS)).await;
    }
}

/// Asks the repository itself, without any credential.
async fn ls_remote(jobs: &Jobs, job: &Job) -> std::result::Result<CommitId, String> {
    let names: Vec<String> = match &job.plan.git_branch {
        None => vec!["HEAD".into()],
        Some(name) if name.starts_with("refs/") => vec![format!("{name}^{{}}"), name.clone()],
        Some(name) => {
            vec![format!("refs/heads/{name}"), format!("refs/tags/{name}^{{}}"), format!("refs/tags/{name}")]
        }
    };
    let mut command = Command::new("git");
    command
        .args(["ls-remote", "--", &job.plan.git_repo])
        .args(&names)
        .env_clear()
        .envs(
            ["PATH", "GIT_SSL_CAINFO", "SSL_CERT_FILE"]
                .iter()
                .filter_map(|n| Some((n, std::env::var_os(n)?))),
        )
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_ALLOW_PROTOCOL", jobs.rules().protocols_for_git())
        .env("GIT_SSH_COMMAND", "ssh -F none -o BatchMode=yes -o IdentityFile=none -o IdentityAgent=none")
        .current_dir("/")
        .stdin(Stdio::null())
        .process_group(0)
        .kill_on_drop(true);
    let limit = Duration::from_secs(LS_REMOTE_SECONDS_MAX);
    let output = match tokio::time::timeout(limit, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(format!("git could not be started: {error}")),
        Err(_) => return Err(format!("git had no answer within {} s", limit.as_secs())),
    };
    if !output.status.success() {
        return Err(reason(&String::from_utf8_lossy(&output.stderr)));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let found: HashMap<&str, &str> =
        text.lines().filter_map(|l| l.split_once('\t')).map(|(c, n)| (n, c)).collect();
    let commit = names.iter().find_map(|name| found.get(name.as_str())?.parse().ok());
    commit.ok_or_else(|| "the repository has no such branch or tag".into())
}

/// Sends the deployment, and begins the log.
async fn begin(
    jobs: &Jobs,
    job: &Job,
    ours: &[&Target],
    commit: &CommitId,
) -> Result<std::result::Result<(), String>> {
    let lines = [
        line(None, heading("PLAY [all]")),
        line(None, format!("commit {commit}")),
        line(None, heading("TASK [git]")),
    ];
    jobs.record(job.id, &lines, &[]).await?;
    send(jobs, job, ours, Some(commit)).await
}

/// Writes the messages of a deployment, or of the question for its commit. Says why it can't.
async fn send(
    jobs: &Jobs,
    job: &Job,
    ours: &[&Target],
    commit: Option<&CommitId>,
) -> Result<std::result::Result<(), String>> {
    let phase = if commit.is_some() { Phase::Deploy } else { Phase::Resolve };
    let message = match message(jobs, job, phase, commit) {
        Ok(message) => message,
        Err(why) => return Ok(Err(why)),
    };
    let task_id = message.task_id.clone();
    let asked = job.plan.options.batch.as_deref().and_then(batch_size);
    let one = (job.plan.run_mode == RunMode::Serial).then_some(BatchSize::Hosts(1));
    let batch = one.or(asked).filter(|_| commit.is_some());
    let sent = in_transaction!(jobs.store(), |tx| -> Result<Option<dispatch::Sent>> {
        let mut candidates: Vec<Candidate> = Vec::new();
        for target in ours {
            let Ok(host) = target.host.parse::<Hostname>() else { continue };
            candidates.extend(jobs.hosts().candidates(tx, &hosts::Target::Node(host)).await?);
        }
        if candidates.is_empty() {
            return Ok(None);
        }
        jobs.unheld(tx, &candidates).await?;
        let body = |claims: &MessageClaims| {
            let own = claims.clone();
            let deploy = Deploy { aud: own.aud, iat: own.iat, exp: own.exp, jti: own.jti, ..message.clone() };
            serde_json::to_vec(&deploy).map_err(|e| Error::Internal(e.to_string()))
        };
        let order = Order {
            task_id: &task_id,
            kind: Kind::Deploy,
            payload_type: PayloadType::Deploy,
            now: Micros::now(),
            timeout: message.timeout,
            expires_in: if batch.is_some() { EXPIRY_SECONDS_BATCH } else { EXPIRY_SECONDS_DEFAULT },
            batch,
            max_failures: job.plan.options.max_failures.filter(|_| commit.is_some()),
            candidates: &candidates,
            secret: false,
            features: &["deploy"],
            body: &body,
        };
        Ok(Some(jobs.dispatch().send(tx, &order).await?))
    });
    match sent {
        Ok(Some(sent)) => {
            jobs.dispatch().committed(sent);
            Ok(Ok(()))
        }
        Ok(None) => Ok(Err("none of these hosts is enrolled any more".into())),
        Err(Error::Conflict(why)) => Ok(Err(why)),
        Err(error) => Err(error),
    }
}

/// What all of a job's messages say, but their claims.
fn message(
    jobs: &Jobs,
    job: &Job,
    phase: Phase,
    commit: Option<&CommitId>,
) -> std::result::Result<Deploy, String> {
    let plan = &job.plan;
    let wrong = |bad: signet_common::deploy::BadDeploy| bad.to_string();
    let part = if phase == Phase::Resolve { Part::Resolve } else { Part::Deploy };
    let protocol = |name: &String| serde_json::from_value::<Protocol>(name.as_str().into()).ok();
    // A commit is no name of a branch: what is fetched is the commit itself.
    let branch = plan.git_branch.as_ref().filter(|name| name.parse::<CommitId>().is_err());
    Ok(Deploy {
        iss: "controller".into(),
        aud: Vec::new(),
        iat: 0,
        exp: 0,
        jti: signet_common::Jti::generate(),
        task_id: task(job.id, part).map_err(|e| e.to_string())?,
        phase,
        repository: plan.git_repo.parse::<GitUrl>().map_err(wrong)?,
        reference: branch.map(|name| name.parse::<GitRef>()).transpose().map_err(wrong)?,
        commit: commit.cloned(),
        path: plan.dest_path.parse::<DeployPath>().map_err(wrong)?,
        strategy: plan.options.releases.clone().map_or(Strategy::InPlace, Strategy::Releases),
        rollback: false,
        force: plan.options.force,
        submodules: false,
        filters: false,
        allowed_signers: None,
        protocols: jobs.rules().protocols.iter().filter_map(protocol).collect(),
        credential: None,
        user: plan.options.user.clone(),
        timeout: if phase == Phase::Resolve { RESOLVE_SECONDS_MAX } else { plan.options.timeout },
        approval: None,
    })
}

/// How a delivery ended that brought no result of its own.
fn ended(target: &dispatch::Target) -> End {
    let delivery = &target.delivery;
    let status = match delivery.state {
        State::Succeeded => TargetStatus::Success,
        // The failure budget is used up, and this one was not released.
        State::Cancelled if delivery.reason == "max_failures" => TargetStatus::Skipped,
        State::Cancelled => TargetStatus::Cancelled,
        State::Expired | State::Lost => TargetStatus::Unreachable,
        _ => TargetStatus::Failed,
    };
    let why = if delivery.reason.is_empty() { delivery.state.as_str() } else { &delivery.reason };
    End {
        reason: if status == TargetStatus::Success { String::new() } else { reason(why) },
        ..End::bad(status, "")
    }
}

/// Follows the deliveries until each is final. The hosts go on whatever this controller's database does, so that a failure
/// to look is no end of theirs.
async fn follow(jobs: &Jobs, job: &Job, main: &TaskId, ours: &[&Target], stop: &Stop) -> Result<()> {
    let mut cancelled = false;
    let mut known = BTreeSet::new();
    let mut pause = AGENTS_LOOK_MILLISECONDS;
    loop {
        if matches!(stop.reason(), Some(Reason::Stopping | Reason::Taken)) {
            return Ok(());
        }
        let before = (known.len(), cancelled);
        let cancel = stop.reason().is_some() && !cancelled;
        match step(jobs, job, main, ours, cancel, &mut known).await {
            Ok(true) => return close(jobs, job).await,
            Ok(false) => cancelled |= cancel,
            Err(Error::Store(error)) => {
                tracing::warn!(%error, job = job.id, "a job's hosts could not be looked at; it is tried again");
            }
            Err(error) => return Err(error),
        }
        // Hosts that are away may be for hours.
        let quiet = before == (known.len(), cancelled);
        pause = if quiet { (pause * 2).min(AGENTS_LOOK_MILLISECONDS_MAX) } else { AGENTS_LOOK_MILLISECONDS };
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(pause)) => {}
            () = stop.stopped(), if stop.reason().is_none() => {}
        }
    }
}

/// Looks at the deliveries once, and cancels what is open when it is to; says whether all are final. `known` is what was
/// written down of them: the place of each that runs or is over, and whether it is over.
async fn step(
    jobs: &Jobs,
    job: &Job,
    main: &TaskId,
    ours: &[&Target],
    cancel: bool,
    known: &mut BTreeSet<(i64, bool)>,
) -> Result<bool> {
    let ordinals: HashMap<&str, i64> = ours.iter().map(|t| (t.host.as_str(), t.ordinal)).collect();
    let found = jobs.dispatch().targets(main, 0, TARGETS_SHOWN_MAX).await?;
    let mut started = Vec::new();
    let mut ends = Vec::new();
    for target in &found {
        let Some(ordinal) = ordinals.get(target.hostname.as_str()) else { continue };
        match target.delivery.state {
            State::Running => started.push((*ordinal, Happening::Started)),
            state if state.is_final() => ends.push((*ordinal, target)),
            _ => {}
        }
    }
    let over = ends.len() == found.len();
    let happenings: Vec<_> = started
        .into_iter()
        .chain(ends.iter().map(|(ordinal, target)| (*ordinal, Happening::Ended(ended(target)))))
        .filter(|(ordinal, happening)| !known.contains(&(*ordinal, *happening != Happening::Started)))
        .collect();
    if !happenings.is_empty() {
        let moved = jobs.record(job.id, &[], &happenings).await?;
        // Those that told their end themselves stand in the log already.
        let silent = ends.iter().filter(|(ordinal, _)| moved.contains(ordinal));
        let said =
            |t: &dispatch::Target| line(Some(t.hostname.as_str()), word(t.hostname.as_str(), &ended(t)));
        let lines: Vec<NewLine> = silent.map(|(_, t)| said(t)).collect();
        jobs.record(job.id, &lines, &[]).await?;
        known.extend(happenings.iter().map(|(ordinal, one)| (*ordinal, *one != Happening::Started)));
    }
    if cancel && !over {
        jobs.dispatch().cancel(&Author::controller("jobs"), main).await?;
    }
    Ok(over)
}

/// Ends the log of the hosts with agents.
async fn close(jobs: &Jobs, job: &Job) -> Result<()> {
    let mut lines = vec![line(None, heading("PLAY RECAP"))];
    let targets = store::targets(jobs.store(), job.id).await?;
    for target in targets.iter().filter(|t| t.engine == Engine::Agent) {
        let changed = u8::from(target.standing.changed == Some(true));
        let counts = match target.standing.status {
            TargetStatus::Success => [1, changed, 0, 0, 0],
            TargetStatus::Unreachable => [0, 0, 1, 0, 0],
            TargetStatus::Failed => [0, 0, 0, 1, 0],
            _ => [0, 0, 0, 0, 1],
        };
        lines.push(line(Some(&target.host), recap(&target.host, counts)));
    }
    jobs.record(job.id, &lines, &[]).await.map(drop)
}
