//! What jobs store of what agents tell, inside intake's transaction.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use async_trait::async_trait;
use signet_common::TaskId;
use signet_common::deploy::Deployed;
use signet_common::messages::{CommandResult, Outcome};
use signet_common::time::Micros;

use super::model::{End, Happening, JobStatus, Target, TargetStatus};
use super::rolling;
use super::service::put_commit;
use super::stop::Reason;
use super::store::{self, Kept, NewLine};
use super::tasks::{Part, part};
use super::text::{self, Splitter, fatal};
use crate::dispatch::{Between, Happened, Outcomes, What};
use crate::error::Result;
use crate::limits::JOB_EVENT_LINES_MAX;
use crate::store::Tx;

/// Stores the log and the results of deployments.
#[derive(Debug, Clone, Copy)]
pub struct DeployOutcomes;

#[async_trait]
impl Outcomes for DeployOutcomes {
    async fn store(&self, tx: &mut Tx, happened: &[Happened]) -> Result<()> {
        let mut jobs: BTreeMap<i64, Vec<(Part, &Happened)>> = BTreeMap::new();
        for one in happened {
            if let Some((job, part)) = part(&one.task_id) {
                jobs.entry(job).or_default().push((part, one));
            }
        }
        for (job, happened) in jobs {
            take(tx, job, &happened).await?;
        }
        Ok(())
    }

    async fn between(&self, tx: &mut Tx, task: &TaskId, between: &Between) -> Result<()> {
        let Some((job, Part::Deploy)) = part(task) else { return Ok(()) };
        let said = rolling::said(between);
        store::lock(tx, job, &[NewLine { at: Micros::now(), host: None, line: said.clone() }]).await?;
        if matches!(between, Between::Stopped { .. }) {
            store::put_reason(tx, job, &text::reason(&said)).await?;
        }
        Ok(())
    }

    async fn forget(&self, _: &mut Tx, _: &[TaskId]) -> Result<()> {
        // A job goes with its log, by its own retention.
        Ok(())
    }
}

async fn take(tx: &mut Tx, job: i64, happened: &[(Part, &Happened)]) -> Result<()> {
    let now = Micros::now();
    let mut lines = Vec::new();
    let mut standing = None;
    for (part, one) in happened {
        let host = one.hostname.as_str();
        let line = |line| NewLine { at: now, host: Some(host.to_owned()), line };
        let output = |data: &[u8]| cut(data).into_iter().map(|text| Kept::Output(line(text)));
        match &one.what {
            What::Output { data, .. } => lines.extend(output(data)),
            What::Result(result) => {
                let mut end = end(result);
                match part {
                    Part::Resolve => {
                        if let Some(commit) = &end.commit {
                            put_commit(tx, job, commit).await?;
                        }
                    }
                    Part::Preflight => {}
                    Part::Deploy => {
                        let standing = locked(&mut standing, tx, job, happened).await?;
                        // What moves nothing is not told either.
                        if !standing.end(tx, host, &mut end, now).await? {
                            continue;
                        }
                    }
                }
                lines.extend(output(&result.stdout).chain(output(&result.stderr)));
                if *part != Part::Resolve {
                    lines.push(Kept::Word(line(word(host, &end))));
                }
            }
            What::Refused(why) if *part == Part::Deploy => {
                let mut end = End::bad(TargetStatus::Failed, text::reason(why));
                if locked(&mut standing, tx, job, happened).await?.end(tx, host, &mut end, now).await? {
                    lines.push(Kept::Word(line(word(host, &end))));
                }
            }
            // The delivery says it all.
            What::Refused(_) | What::Ended => {}
        }
    }
    let lines = store::fitting(tx, job, lines).await?;
    store::lock(tx, job, &lines).await?;
    match standing {
        Some(standing) => standing.settle(tx).await,
        None => Ok(()),
    }
}

/// How the job stands, read when that is first asked for.
async fn locked<'a>(
    known: &'a mut Option<Standing>,
    tx: &mut Tx,
    job: i64,
    happened: &[(Part, &Happened)],
) -> Result<&'a mut Standing> {
    match known {
        Some(standing) => Ok(standing),
        none => Ok(none.insert(Standing::locked(tx, job, happened).await?)),
    }
}

/// A job whose row this transaction holds, as its hosts' words move it.
struct Standing {
    job: i64,
    status: JobStatus,
    cancelled: bool,
    /// Those that said something, by name.
    targets: HashMap<String, Target>,
    /// Those of them that it moved.
    moved: BTreeSet<String>,
    /// What is said of a job whose time is over, once it was asked for.
    late: Option<String>,
}

impl Standing {
    async fn locked(tx: &mut Tx, job: i64, happened: &[(Part, &Happened)]) -> Result<Self> {
        store::lock(tx, job, &[]).await?;
        let told = |(part, one): &(Part, &Happened)| {
            *part == Part::Deploy && matches!(one.what, What::Result(_) | What::Refused(_))
        };
        let hosts: BTreeSet<&str> =
            happened.iter().filter(|one| told(one)).map(|(_, one)| one.hostname.as_str()).collect();
        let hosts: Vec<&str> = hosts.into_iter().collect();
        let found = store::targets_among(tx, job, &hosts).await?;
        let targets = found.into_iter().map(|target| (target.host.clone(), target)).collect();
        // Of one that is gone nothing is kept.
        let (status, cancelled) = store::status_of(tx, job).await?.unwrap_or((JobStatus::Failed, false));
        Ok(Self { job, status, cancelled, targets, moved: BTreeSet::new(), late: None })
    }

    /// Ends a host by its own word; says whether that moves it. What was cancelled although nobody asked for that, ended with
    /// the job's time.
    async fn end(&mut self, tx: &mut Tx, host: &str, end: &mut End, now: Micros) -> Result<bool> {
        if end.status == TargetStatus::Cancelled && !self.cancelled {
            let late = match &self.late {
                Some(late) => late,
                None => self.late.insert(timed_out(tx, self.job).await?),
            };
            (end.status, end.reason) = (TargetStatus::Failed, late.clone());
        }
        let Some(target) = self.targets.get_mut(host) else { return Ok(false) };
        let Some(next) = target.standing.apply(&Happening::Ended(end.clone()), now) else { return Ok(false) };
        target.standing = next;
        self.moved.insert(host.to_owned());
        Ok(true)
    }

    /// Writes what was moved. A job that is over already stands where its hosts stand now.
    async fn settle(mut self, tx: &mut Tx) -> Result<()> {
        let moved: Vec<Target> = self.moved.iter().filter_map(|host| self.targets.remove(host)).collect();
        store::put_targets(tx, self.job, &moved).await?;
        if !self.status.is_final() {
            return Ok(());
        }
        let targets = store::targets(&mut *tx, self.job).await?;
        let statuses: Vec<_> = targets.iter().map(|target| target.standing.status).collect();
        let status = JobStatus::of(&statuses, self.cancelled);
        if status == self.status {
            return Ok(());
        }
        store::put_status(tx, self.job, status).await?;
        if status == JobStatus::Success {
            store::put_reason(tx, self.job, "").await?;
        }
        Ok(())
    }
}

/// What is said of a job whose time is over.
async fn timed_out(tx: &mut Tx, job: i64) -> Result<String> {
    match store::one(&mut *tx, job).await {
        Ok(Some(job)) => Ok(Reason::TimedOut.why(&job)),
        Err(error) if !error.is_corrupt() => Err(error.into()),
        // It was ended because it can't be read.
        _ => Ok("the job was ended".into()),
    }
}

fn cut(data: &[u8]) -> Vec<String> {
    let mut splitter = Splitter::default();
    let mut lines = splitter.push(data);
    lines.extend(splitter.rest());
    // Each is a row, in the transaction that takes in everybody's results.
    if lines.len() > JOB_EVENT_LINES_MAX {
        lines.truncate(JOB_EVENT_LINES_MAX);
        lines.push(format!("(more than {JOB_EVENT_LINES_MAX} lines at once: the rest is not kept)"));
    }
    lines
}

/// How a deployment ended, in the job's words.
fn end(result: &CommandResult) -> End {
    let status = match result.outcome {
        Outcome::Succeeded => TargetStatus::Success,
        Outcome::Cancelled => TargetStatus::Cancelled,
        Outcome::Expired => TargetStatus::Unreachable,
        Outcome::Failed | Outcome::TimedOut | Outcome::Interrupted => TargetStatus::Failed,
    };
    let done: Option<&Deployed> = result.deploy.as_deref();
    let said = result.reason.clone().unwrap_or_else(|| match result.outcome {
        Outcome::TimedOut => "the deployment took too long".into(),
        Outcome::Interrupted => "the agent was interrupted".into(),
        _ => format!("exit code {}", result.exit_code.unwrap_or(-1)),
    });
    End {
        status,
        changed: done.is_some_and(|done| done.changed),
        commit: done.and_then(|done| done.commit.as_ref()).map(ToString::to_string),
        reason: if status == TargetStatus::Success { String::new() } else { text::reason(&said) },
        elapsed_ms: i64::try_from(result.duration_ms).ok(),
        inferred: false,
    }
}

/// What Ansible would say of it.
pub(super) fn word(host: &str, end: &End) -> String {
    match end.status {
        TargetStatus::Success if end.changed => format!("changed: [{host}]"),
        TargetStatus::Success => format!("ok: [{host}]"),
        TargetStatus::Cancelled => format!("cancelled: [{host}]"),
        TargetStatus::Skipped => format!("skipping: [{host}]"),
        status => fatal(host, status == TargetStatus::Unreachable, &end.reason),
    }
}
