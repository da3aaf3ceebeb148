//! The engine "agent": one commit is pinned first, then every host gets it in a signed message. What becomes of it is told
//! by the deliveries and by [`super::outcomes`], so that any controller can go on where another stopped.

use std::collections::{BTreeSet, HashMap};
use std::iter::repeat;

use signet_common::deploy::{CommitId, Deploy, DeployPath, GitRef, GitUrl, Phase, Protocol, Strategy};
use signet_common::envelope::PayloadType;
use signet_common::limits::{EXPIRY_SECONDS_BATCH, EXPIRY_SECONDS_DEFAULT};
use signet_common::time::Micros;
use signet_common::{AgentId, Hostname, TaskId};

use super::credentials::{self, Access, Sealing};
use super::model::{End, Engine, Happening, Job, Target, TargetStatus, parse_id, shown};
use super::outcomes::word;
use super::pace::Pace;
use super::remote;
use super::rolling::{Turns, turns};
use super::runner::{Reason, Stop};
use super::service::Jobs;
use super::store::{self, NewLine};
use super::text::{heading, reason, recap};
use super::{held, rollback};
use crate::audit::Author;
use crate::dispatch::model::State;
use crate::dispatch::{self, Brake, Kind, MessageClaims, Order, Rolling};
use crate::error::{Error, Result};
use crate::hosts::{self, Candidate};
use crate::limits::{RESOLVE_SECONDS_MAX, TARGETS_SHOWN_MAX};
use crate::store::{Tx, in_transaction};

/// Which of a job's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// To find out the commit.
    Resolve,
    /// To have it on the hosts before any of them goes back to it.
    Preflight,
    /// To deploy it.
    Deploy,
}

impl Part {
    /// What the id of its task ends with.
    const fn suffix(self) -> &'static str {
        match self {
            Self::Resolve => "-resolve",
            Self::Preflight => "-preflight",
            Self::Deploy => "",
        }
    }

    const fn phase(self) -> Phase {
        match self {
            Self::Resolve => Phase::Resolve,
            Self::Preflight => Phase::Preflight,
            Self::Deploy => Phase::Deploy,
        }
    }
}

pub(super) fn task(job: i64, part: Part) -> Result<TaskId> {
    format!("{}{}", shown(job), part.suffix()).parse().map_err(|_| Error::Internal("a job's task id".into()))
}

/// The job that a task belongs to.
pub(super) fn part(task: &TaskId) -> Option<(i64, Part)> {
    let of = |part: Part| Some((parse_id(task.as_str().strip_suffix(part.suffix())?)?, part));
    [Part::Resolve, Part::Preflight, Part::Deploy].into_iter().find_map(of)
}

/// What became of a job's hosts with agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    /// Each has its end, or another controller goes on.
    Over,
    /// The job waits for people, and is nobody's until they decide.
    Awaits,
}

/// Brings a job's hosts with agents to their ends, or goes on with that. Returns early when the controller stops.
pub(super) async fn run(jobs: &Jobs, job: &Job, targets: &[Target], stop: &Stop) -> Result<Run> {
    let ours: Vec<&Target> = targets.iter().filter(|t| t.engine == Engine::Agent).collect();
    if ours.is_empty() {
        return Ok(Run::Over);
    }
    let main = task(job.id, Part::Deploy)?;
    if jobs.dispatch().targets(&main, 0, 1).await?.is_empty() {
        let begun = match ready(jobs, job, &ours, stop).await? {
            Ok(commit) if stop.reason().is_none() => begin(jobs, job, &ours, &commit).await?,
            Ok(_) => Err("the job was ended before anything was sent".into()),
            Err(why) => Err(why),
        };
        match begun {
            // Whatever came up meanwhile: what was sent is followed.
            Ok(Sending::Sent) => {}
            Ok(Sending::Awaits) => return Ok(Run::Awaits),
            Err(_) if stop.reason().is_some_and(|reason| reason != Reason::TimedOut) => return Ok(Run::Over),
            Err(why) => return all_fail(jobs, job, &ours, &why).await.map(|()| Run::Over),
        }
    }
    follow(jobs, job, &main, &ours, stop).await.map(|()| Run::Over)
}

/// The one commit of the job once it may be deployed, or why it may not: to go back to it, all hosts must have it.
async fn ready(
    jobs: &Jobs,
    job: &Job,
    ours: &[&Target],
    stop: &Stop,
) -> Result<std::result::Result<CommitId, String>> {
    let commit = pinned(jobs, job, ours, stop).await?;
    let Ok(commit) = commit else { return Ok(commit) };
    if job.plan.options.rollback.is_none() {
        return Ok(Ok(commit));
    }
    let lacking = rollback::preflight(jobs, job, ours, &commit, stop).await?;
    Ok(lacking.map_or(Ok(commit), Err))
}

pub(super) fn line(host: Option<&str>, line: String) -> NewLine {
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
    let wanted = job.commit.as_deref().or(job.plan.version());
    let known = wanted.and_then(|text| text.parse().ok());
    if let Some(commit) = known {
        jobs.put_commit(job.id, &CommitId::to_string(&commit)).await?;
        return Ok(Ok(commit));
    }
    let access = match jobs.access(job).await? {
        Ok(access) => access,
        Err(why) => return Ok(Err(why)),
    };
    let said = match remote::commit(jobs, job, access.credential.as_ref()).await {
        Ok(commit) => {
            jobs.put_commit(job.id, &commit.to_string()).await?;
            return Ok(Ok(commit));
        }
        Err(said) => said,
    };
    // A host may be able to read what the controller can't.
    let resolving = task(job.id, Part::Resolve)?;
    if jobs.dispatch().targets(&resolving, 0, 1).await?.is_empty()
        && let Err(why) = send(jobs, job, ours, Part::Resolve, None).await?
    {
        return Ok(Err(why));
    }
    let pace = Pace::begin();
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
        pace.next().await;
    }
}

/// Sends the deployment, and begins the log.
async fn begin(
    jobs: &Jobs,
    job: &Job,
    ours: &[&Target],
    commit: &CommitId,
) -> Result<std::result::Result<Sending, String>> {
    let lines = [
        line(None, heading("PLAY [all]")),
        line(None, format!("commit {commit}")),
        line(None, heading("TASK [git]")),
    ];
    jobs.record(job.id, &lines, &[]).await?;
    send(jobs, job, ours, Part::Deploy, Some(commit)).await
}

/// What became of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    /// They are on their way.
    Sent,
    /// They will be, once people agreed.
    Awaits,
}

/// Writes the messages of a deployment, or of a question before it. Says why it can't.
pub(super) async fn send(
    jobs: &Jobs,
    job: &Job,
    ours: &[&Target],
    part: Part,
    commit: Option<&CommitId>,
) -> Result<std::result::Result<Sending, String>> {
    let access = match jobs.access(job).await? {
        Ok(access) => access,
        Err(why) => return Ok(Err(why)),
    };
    let message = match message(jobs, job, part, &access, commit) {
        Ok(message) => message,
        Err(why) => return Ok(Err(why)),
    };
    let task_id = message.task_id.clone();
    let turns = turns_of(job, ours, part);
    let rolling = turns.rolling;
    let in_steps = rolling.batch.is_some() || rolling.canary > 0;
    let sent = in_transaction!(jobs.store(), |tx| -> Result<Option<(dispatch::Sent, bool)>> {
        let mut candidates = in_turn(jobs, tx, ours, &turns).await?;
        let sealing = match &access.credential {
            Some(credential) => Some(Sealing::new(jobs, tx, credential, &candidates).await?),
            None => None,
        };
        let refuses = |agent: &AgentId| sealing.as_ref().and_then(|sealing| sealing.refuses(agent));
        if commit.is_none() {
            candidates = first_there(candidates, refuses);
        }
        if candidates.is_empty() {
            return Ok(None);
        }
        let body = |claims: &MessageClaims| {
            let own = claims.clone();
            let credential = credentials::sealed(sealing.as_ref(), claims)?;
            let message = Deploy { credential, ..message.clone() };
            let deploy = Deploy { aud: own.aud, iat: own.iat, exp: own.exp, jti: own.jti, ..message };
            serde_json::to_vec(&deploy).map_err(|e| Error::Internal(e.to_string()))
        };
        let order = Order {
            task_id: &task_id,
            kind: Kind::Deploy,
            payload_type: PayloadType::Deploy,
            now: Micros::now(),
            timeout: message.timeout,
            expires_in: if in_steps { EXPIRY_SECONDS_BATCH } else { EXPIRY_SECONDS_DEFAULT },
            rolling,
            candidates: &candidates,
            audience: credentials::audience(sealing.as_ref(), &refuses),
            secret: sealing.is_some(),
            features: &["deploy"],
            body: &body,
        };
        if part == Part::Deploy
            && let Some(need) = jobs.need(tx, &candidates).await?
        {
            let credential = sealing.as_ref().and_then(Sealing::sample);
            let message = Deploy { credential, ..message.clone() };
            return held::hold(jobs, tx, job, need, &order, message).await.map(Some);
        }
        Ok(Some((jobs.dispatch().send(tx, &order).await?, false)))
    });
    match sent {
        Ok(Some((sent, awaits))) => {
            jobs.dispatch().committed(sent);
            Ok(Ok(if awaits { Sending::Awaits } else { Sending::Sent }))
        }
        Ok(None) => Ok(Err("none of these hosts is enrolled any more".into())),
        Err(Error::Conflict(why) | Error::TooLarge(why) | Error::Invalid { message: why, .. }) => {
            Ok(Err(why))
        }
        Err(error) => Err(error),
    }
}

/// In what order the hosts go; a question before the deployment goes to all at once.
fn turns_of(job: &Job, ours: &[&Target], part: Part) -> Turns {
    let names: Vec<&str> = ours.iter().map(|target| target.host.as_str()).collect();
    let turns = turns(&job.plan, Engine::Agent, &names, fastrand::shuffle);
    if part == Part::Deploy { turns } else { Turns { rolling: Rolling::default(), ..turns } }
}

/// The hosts in their turns, as they are now. A job does not begin without each host of its canary.
async fn in_turn(jobs: &Jobs, tx: &mut Tx, ours: &[&Target], turns: &Turns) -> Result<Vec<Candidate>> {
    let names = || turns.order.iter().map(|at| ours[*at].host.as_str());
    let hosts = names().filter_map(|name| name.parse::<Hostname>().ok()).collect();
    let candidates = jobs.hosts().candidates(tx, &hosts::Target::Nodes(hosts)).await?;
    let mut canaries =
        names().take(turns.rolling.canary).zip(candidates.iter().map(Some).chain(repeat(None)));
    match canaries.find(|(name, found)| found.is_none_or(|host| host.hostname.as_str() != *name)) {
        Some((name, _)) => Err(Error::Conflict(format!("the canary {name} is not enrolled any more"))),
        None => Ok(candidates),
    }
}

/// Of hosts that could be asked for a commit the first that is there, else the first.
fn first_there(hosts: Vec<Candidate>, refuses: impl Fn(&AgentId) -> Option<&'static str>) -> Vec<Candidate> {
    let now = Micros::now();
    let there = |host: &Candidate| {
        host.agent.as_ref().is_some_and(|a| a.accepted && a.online(now) && refuses(&a.agent_id).is_none())
    };
    let at = hosts.iter().position(there).unwrap_or(0);
    hosts.into_iter().skip(at).take(1).collect()
}

/// What all of a job's messages say, but their claims and the credential, which is another for each host.
fn message(
    jobs: &Jobs,
    job: &Job,
    part: Part,
    access: &Access,
    commit: Option<&CommitId>,
) -> std::result::Result<Deploy, String> {
    let plan = &job.plan;
    let wrong = |bad: signet_common::deploy::BadDeploy| bad.to_string();
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
        phase: part.phase(),
        repository: plan.git_repo.parse::<GitUrl>().map_err(wrong)?,
        reference: branch.map(|name| name.parse::<GitRef>()).transpose().map_err(wrong)?,
        commit: commit.cloned(),
        path: plan.dest_path.parse::<DeployPath>().map_err(wrong)?,
        strategy: plan.options.releases.clone().map_or(Strategy::InPlace, Strategy::Releases),
        rollback: plan.options.rollback.is_some(),
        force: plan.options.force,
        submodules: plan.options.submodules,
        filters: plan.options.filters,
        allowed_signers: access.allowed_signers.clone(),
        protocols: jobs.rules().protocols.iter().filter_map(protocol).collect(),
        credential: None,
        user: plan.options.user.clone(),
        timeout: if part == Part::Resolve { RESOLVE_SECONDS_MAX } else { plan.options.timeout },
        approval: None,
    })
}

/// How a delivery ended that brought no result of its own.
fn ended(target: &dispatch::Target) -> End {
    let delivery = &target.delivery;
    let status = match delivery.state {
        State::Succeeded => TargetStatus::Success,
        // The canary failed or the failure budget is used up, and this one was not released.
        State::Cancelled if Brake::held_back(&delivery.reason) => TargetStatus::Skipped,
        State::Cancelled => TargetStatus::Cancelled,
        // Nobody tried to reach it.
        State::Expired if delivery.reason.starts_with("not approved") => TargetStatus::Failed,
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
    // Hosts that are away may be for hours.
    let mut pace = Pace::patient();
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
        if before != (known.len(), cancelled) {
            pace = Pace::patient();
        }
        tokio::select! {
            () = pace.next() => {}
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
