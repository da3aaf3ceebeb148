//! What a job's hosts are sent: questions before a deployment, and the deployment.

use std::iter::repeat;
use std::sync::Arc;

use signet_common::deploy::{CommitId, Deploy, DeployPath, GitRef, GitUrl, Protocol, Strategy};
use signet_common::envelope::PayloadType;
use signet_common::fault::{self, JobPoint};
use signet_common::limits::{EXPIRY_SECONDS_BATCH, EXPIRY_SECONDS_DEFAULT};
use signet_common::time::Micros;
use signet_common::{AgentId, Hostname};

use super::super::credentials::{self, Access, Ahead, Sealing};
use super::super::leases::LEASE_MICROS;
use super::super::model::{Engine, Job, Target};
use super::super::rolling::{Turns, turns};
use super::super::service::Jobs;
use super::super::stop::{Reason, Stop};
use super::super::store::{self, NewLine, line};
use super::super::tasks::{Part, task};
use super::super::text::heading;
use super::super::{held, lease_store};
use crate::dispatch::{self, Body, Kind, Order, Rolling};
use crate::error::{Error, Result};
use crate::hosts::{self, Candidate};
use crate::limits::RESOLVE_SECONDS_MAX;
use crate::repositories::Credential;
use crate::store::{AsStoreError, StoreError, Tx, in_transaction};

/// Why nothing was sent of a job that was ended.
pub(super) const ENDED: &str = "the job was ended before anything was sent";

/// What became of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::deploy) enum Sending {
    /// They are on their way.
    Sent,
    /// They will be, once people agreed.
    Awaits,
}

/// Why messages were not written, and the transaction leaves no trace.
enum Unsent {
    /// The job is not to go on, for this reason.
    Ended(Reason),
    /// Something went wrong.
    Failed(Error),
}

impl Unsent {
    /// In words for people, if it is no fault of this controller's or its database's.
    fn why(self, stop: &Stop) -> Result<String> {
        match self {
            Self::Ended(reason) => {
                stop.stop(reason);
                Ok(ENDED.into())
            }
            Self::Failed(
                Error::Conflict(why) | Error::TooLarge(why) | Error::Invalid { message: why, .. },
            ) => Ok(why),
            Self::Failed(error) => Err(error),
        }
    }
}

impl<E: Into<Error>> From<E> for Unsent {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl AsStoreError for Unsent {
    fn as_store_error(&self) -> Option<&StoreError> {
        match self {
            Self::Failed(error) => error.as_store_error(),
            Self::Ended(_) => None,
        }
    }
}

/// Writes the messages of a deployment, with the beginning of its log, or of a question before it. Says why it can't.
pub(in crate::deploy) async fn send(
    jobs: &Jobs,
    job: &Job,
    ours: &[&Target],
    part: Part,
    commit: Option<&CommitId>,
    stop: &Stop,
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
    let expires_in = if in_steps { EXPIRY_SECONDS_BATCH } else { EXPIRY_SECONDS_DEFAULT };
    let ahead = ahead(jobs, ours, (part, &message, expires_in), access.credential.as_ref()).await?;
    let sent = in_transaction!(jobs.store(), |tx| -> Result<Option<(dispatch::Sent, bool)>, Unsent> {
        let mut candidates = in_turn(jobs, tx, ours, &turns).await?;
        let sealing = match &access.credential {
            Some(credential) => {
                Some(Arc::new(Sealing::new(jobs, tx, credential, &candidates, ahead.as_ref()).await?))
            }
            None => None,
        };
        let drafts = ahead.as_ref().zip(sealing.as_deref()).map(|(ahead, sealing)| ahead.drafts(sealing));
        let refuses = |agent: &AgentId| sealing.as_ref().and_then(|sealing| sealing.refuses(agent));
        if commit.is_none() {
            candidates = first_there(candidates, refuses);
        }
        if candidates.is_empty() {
            return Ok(None);
        }
        let body = body(&message, sealing.as_ref());
        let order = Order {
            task_id: &task_id,
            kind: Kind::Deploy,
            payload_type: PayloadType::Deploy,
            now: Micros::now(),
            timeout: message.timeout,
            expires_in,
            rolling,
            candidates: &candidates,
            audience: credentials::audience(sealing.as_deref(), &refuses),
            secret: sealing.is_some(),
            features: &["deploy"],
            body: &body,
            drafts: drafts.as_ref(),
        };
        let need = if part == Part::Deploy { jobs.need(tx, &candidates).await? } else { None };
        let (sent, awaits) = match need {
            Some(need) => {
                let credential = sealing.as_deref().and_then(Sealing::sample);
                let message = Deploy { credential, ..message.clone() };
                held::hold(jobs, tx, job, need, &order, message).await?
            }
            None => (jobs.dispatch().send(tx, &order).await?, None),
        };
        let mut lines = beginning(part, commit);
        lines.extend(awaits.iter().cloned());
        under_lease(jobs, tx, job.id, &lines, awaits.is_some()).await?;
        Ok(Some((sent, awaits.is_some())))
    });
    match sent {
        Ok(Some((sent, awaits))) => {
            jobs.dispatch().committed(sent);
            Ok(Ok(if awaits { Sending::Awaits } else { Sending::Sent }))
        }
        Ok(None) => Ok(Err("none of these hosts is enrolled any more".into())),
        Err(unsent) => unsent.why(stop).map(Err),
    }
}

/// The messages of hosts that get one each, sealed and signed before the transaction that sends them; none when people are
/// asked first, or one host is for a commit.
async fn ahead(
    jobs: &Jobs,
    ours: &[&Target],
    (part, message, expires_in): (Part, &Deploy, u32),
    credential: Option<&Credential>,
) -> Result<Option<Ahead>> {
    let Some(credential) = credential.filter(|_| part != Part::Resolve) else { return Ok(None) };
    let hosts: Vec<Hostname> = ours.iter().filter_map(|target| target.host.parse().ok()).collect();
    let sealing = in_transaction!(jobs.store(), |tx| -> Result<Option<Sealing>> {
        let candidates = jobs.hosts().candidates(tx, &hosts::Target::Nodes(hosts.clone())).await?;
        if part == Part::Deploy && jobs.need(tx, &candidates).await?.is_some() {
            return Ok(None);
        }
        Sealing::new(jobs, tx, credential, &candidates, None).await.map(Some)
    })?;
    let Some(sealing) = sealing.map(Arc::new) else { return Ok(None) };
    let (agents, body) = (sealing.agents(), body(message, Some(&sealing)));
    let drafts = jobs.dispatch().draft(PayloadType::Deploy, expires_in, agents, &body).await?;
    Ok(Some(Ahead { sealing, drafts }))
}

/// Writes the bodies of a job's messages, each with the credential as its host gets it.
fn body(message: &Deploy, sealing: Option<&Arc<Sealing>>) -> Body {
    let (message, sealing) = (message.clone(), sealing.cloned());
    Arc::new(move |claims| {
        let own = claims.clone();
        let credential = sealing.as_ref().map(|sealing| sealing.sealed(claims)).transpose()?;
        let message = Deploy { credential, ..message.clone() };
        let deploy = Deploy { aud: own.aud, iat: own.iat, exp: own.exp, jti: own.jti, ..message };
        serde_json::to_vec(&deploy).map_err(|e| Error::Internal(e.to_string()))
    })
}

/// The last statements of a transaction that sends, because rows of jobs are locked behind those of dispatches. The job's is
/// held until the commit, so that who takes the job finds the messages.
async fn under_lease(
    jobs: &Jobs,
    tx: &mut Tx,
    job: i64,
    lines: &[NewLine],
    awaits: bool,
) -> Result<(), Unsent> {
    store::lock(tx, job, lines).await?;
    if !lease_store::renew(tx, job, jobs.holder(), LEASE_MICROS).await? {
        return Err(Unsent::Ended(Reason::Taken));
    }
    if awaits && !lease_store::await_decision(tx, job, jobs.holder()).await? {
        return Err(Unsent::Ended(Reason::Cancelled));
    }
    fault::hit(JobPoint::Sending);
    Ok(())
}

/// What the log says of messages that go out.
fn beginning(part: Part, commit: Option<&CommitId>) -> Vec<NewLine> {
    let lines = match (part, commit) {
        (Part::Preflight, Some(commit)) => vec![heading(&format!("PREFLIGHT [{commit}]"))],
        (Part::Deploy, Some(commit)) => {
            vec![heading("PLAY [all]"), format!("commit {commit}"), heading("TASK [git]")]
        }
        (Part::Resolve, _) | (_, None) => Vec::new(),
    };
    lines.into_iter().map(|text| line(None, text)).collect()
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
