//! One command, from its turn to its end in the journal.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use signet_common::fault::{self, Point};
use signet_common::ids::Jti;
use signet_common::limits::OUTPUT_BYTES_DEFAULT;
use signet_common::messages::{Command, CommandResult, Event, Outcome, Rejection, Stream, StreamSummary};
use tokio::sync::watch;

use crate::agent::{Agent, Gate, at, entry};
use crate::deploy;
use crate::journal::{Entry, Purpose};
use crate::limits::REASON_BYTES_MAX;
use crate::order::Order;
use crate::policy::Denied;
use crate::run::{CannotStart, End, Program, RunEvent, Running, Spec};
use crate::work::{Ready, Stage, Step};

/// Starts what may start, and ends what waited too long.
pub(crate) fn pump(agent: &Arc<Agent>) {
    let now = agent.time();
    // Without room for what they do, commands that were accepted wait on.
    let short = agent.journal.head().borrow().trouble.is_some();
    let here = agent.here(now);
    let mut ends = Vec::new();
    let mut chosen = Vec::new();
    {
        let mut desk = agent.desk();
        if matches!(desk.gate, Gate::Open) {
            for (jti, event) in overdue(&desk.work, now) {
                step(&mut desk.work, &jti, Step::Ended);
                ends.push(entry(event));
            }
            while !short && let Some(order) = desk.work.choose() {
                match order.allowed(&agent.policy, &here) {
                    Ok(()) => chosen.push(order),
                    Err(Denied(why)) => {
                        let jti = order.jti();
                        step(&mut desk.work, jti, Step::Ended);
                        ends.push(entry(rejected(jti, Rejection::Policy, why)));
                    }
                }
            }
        }
    }
    agent.spawn_end(ends);
    for order in chosen {
        let agent = Arc::clone(agent);
        agent.tasks.clone().spawn(async move { start(&agent, order).await });
    }
}

/// What waits and may not start any more, with its end.
fn overdue(work: &crate::work::Work, now: i64) -> Vec<(Jti, Event)> {
    let over = |ready: Ready| {
        let jti = ready.jti().clone();
        let event = ended(&jti, Outcome::Expired, "it expired while it waited for a slot");
        (jti, event)
    };
    work.waiting_where(|order| order.exp() < now).into_iter().map(over).collect()
}

/// Journals `started`, then runs. Without room for that the command waits on.
async fn start(agent: &Arc<Agent>, order: Ready) {
    let jti = order.jti().clone();
    let event = entry(Event::Started { jti: jti.clone(), at: at() });
    match agent.append(vec![event], Purpose::Work).await {
        Ok(()) => run(agent, order).await,
        Err(error) => {
            tracing::warn!(%jti, %error, "a command can't start now");
            let stage = step(&mut agent.desk().work, &jti, Step::Postponed);
            if stage == Some(Stage::Done) {
                let event = ended(&jti, Outcome::Cancelled, "cancelled before it started");
                agent.append_end(vec![entry(event)]).await;
            }
        }
    }
}

/// Runs a command whose `started` is synced, in the background.
pub(crate) fn spawn(agent: &Arc<Agent>, order: Ready) {
    let agent = Arc::clone(agent);
    agent.tasks.clone().spawn(async move { run(&agent, order).await });
}

async fn run(agent: &Arc<Agent>, order: Ready) {
    let jti = order.jti().clone();
    let event = match begin(agent, &jti) {
        None => ended(&jti, Outcome::Cancelled, "cancelled before it started"),
        Some(ends) => {
            fault::hit(Point::AgentBeforeSpawn);
            match begun(agent, &order).await {
                Ok((running, report)) => {
                    fault::hit(Point::AgentAfterSpawn);
                    step(&mut agent.desk().work, &jti, Step::Spawned);
                    let mut result = follow(agent, &jti, running, ends).await;
                    if let Some(report) = report {
                        report.amend(&mut result);
                        note(agent, &order, &result).await;
                    }
                    fault::hit(Point::AgentBeforeResult);
                    Event::Result { jti: jti.clone(), at: at(), result }
                }
                Err(cannot) => rejected(&jti, cannot.reason, cannot.detail),
            }
        }
    };
    {
        let mut desk = agent.desk();
        desk.ends.remove(&jti);
        step(&mut desk.work, &jti, Step::Ended);
    }
    // The next one's `started` shares this result's sync.
    pump(agent);
    agent.append_end(vec![entry(event)]).await;
    fault::hit(Point::AgentAfterResult);
}

/// Starts the process. A deployment's says more at its end than output and exit code.
async fn begun(agent: &Agent, order: &Order) -> Result<(Running, Option<deploy::Reported>), CannotStart> {
    match order {
        Order::Command(command) => Ok((agent.runner.start(spec(command.get())).await?, None)),
        Order::Deploy(message) => {
            let (spec, report) = deploy::prepare(
                message.get(),
                &deploy::Here {
                    data: &agent.data,
                    roots: agent.policy.deploy_roots(),
                    narrowed: agent.policy.narrows_shell(),
                    own_user: &agent.own_user,
                },
            )?;
            Ok((agent.runner.start(spec).await?, Some(report)))
        }
    }
}

/// Remembers what was deployed, so that it is looked at from now on.
async fn note(agent: &Agent, order: &Order, result: &CommandResult) {
    let (Order::Deploy(message), Some(deployed)) = (order, &result.deploy) else { return };
    if let Err(error) = agent.known.lock().await.note(message.get(), deployed) {
        tracing::warn!(%error, "what was deployed can't be remembered");
    }
    agent.deployed.notify_one();
}

/// Makes it endable; `None` when it was cancelled before it could begin.
fn begin(agent: &Agent, jti: &Jti) -> Option<watch::Receiver<Option<End>>> {
    let mut desk = agent.desk();
    if desk.work.stage(jti) == Some(Stage::Cancelling) {
        return None;
    }
    let (end, ends) = watch::channel(None);
    desk.ends.insert(jti.clone(), end);
    Some(ends)
}

/// Journals its output until it ends.
async fn follow(
    agent: &Arc<Agent>,
    jti: &Jti,
    mut running: Running,
    mut ends: watch::Receiver<Option<End>>,
) -> Box<CommandResult> {
    let mut lost = Lost::default();
    loop {
        if let Some(why) = *ends.borrow_and_update() {
            running.end(why);
        }
        let event = tokio::select! {
            event = running.next() => event,
            Ok(()) = ends.changed() => continue,
        };
        let (stream, offset, data) = match event {
            RunEvent::Finished(mut result) => {
                lost.amend(&mut result);
                return result;
            }
            RunEvent::Output { stream, offset, data } => (stream, offset, data),
            RunEvent::Count { stream, bytes } => (stream, bytes, Vec::new()),
        };
        if !data.is_empty() && lost.from(stream).is_some() {
            continue;
        }
        let full = data.len();
        let event = entry(Event::Output { jti: jti.clone(), stream, offset, data });
        if let Err(error) = agent.append(vec![event], Purpose::Progress).await {
            tracing::warn!(%jti, %error, "output could not be kept");
            if full > 0 {
                lost.note(stream, offset);
            }
        }
    }
}

/// Where output was lost because the disk was full: from there on nothing of the stream is kept.
#[derive(Debug, Default)]
struct Lost {
    stdout: Option<u64>,
    stderr: Option<u64>,
}

impl Lost {
    fn from(&self, stream: Stream) -> Option<u64> {
        match stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        }
    }

    fn note(&mut self, stream: Stream, offset: u64) {
        let from = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        from.get_or_insert(offset);
    }

    /// The result tells the truth about what is missing.
    fn amend(&self, result: &mut CommandResult) {
        for (from, summary) in
            [(self.stdout, &mut result.stdout_summary), (self.stderr, &mut result.stderr_summary)]
        {
            if let Some(from) = from {
                let first = summary.omitted_from.map_or(from, |omitted| omitted.min(from));
                summary.omitted_from = Some(first);
                summary.omitted_bytes = summary.bytes.saturating_sub(first);
            }
        }
    }
}

fn spec(command: &Command) -> Spec {
    let program = match (&command.command, &command.argv) {
        (Some(text), _) => Program::Shell(text.clone()),
        (None, argv) => Program::Argv(argv.clone().unwrap_or_default()),
    };
    Spec {
        jti: command.jti.clone(),
        program,
        env: command.env.clone(),
        cwd: command.cwd.clone().map(PathBuf::from),
        stdin: command.stdin.clone(),
        user: command.user.clone(),
        timeout: Duration::from_secs(command.timeout.into()),
        output_limit: command.output_limit.unwrap_or(OUTPUT_BYTES_DEFAULT),
        detached: command.detached,
    }
}

fn step(work: &mut crate::work::Work, jti: &Jti, step: Step) -> Option<Stage> {
    work.step(jti, step)
        .inspect_err(|illegal| tracing::error!(%jti, %illegal, "a message is out of step"))
        .ok()
}

/// The `result` of something that has no process.
pub(crate) fn ended(jti: &Jti, outcome: Outcome, reason: &str) -> Event {
    let result = CommandResult {
        outcome,
        reason: Some(reason.to_owned()),
        exit_code: None,
        signal: None,
        stdout: Vec::new(),
        stderr: Vec::new(),
        stdout_summary: StreamSummary::default(),
        stderr_summary: StreamSummary::default(),
        killed: 0,
        duration_ms: 0,
        deploy: None,
    };
    Event::Result { jti: jti.clone(), at: at(), result: Box::new(result) }
}

/// A refusal, its text bounded.
pub(crate) fn rejected(jti: &Jti, reason: Rejection, mut detail: String) -> Event {
    let mut end = detail.len().min(REASON_BYTES_MAX);
    while !detail.is_char_boundary(end) {
        end -= 1;
    }
    detail.truncate(end);
    Event::Rejected { jti: jti.clone(), at: at(), reason, detail }
}

/// For entries that end something, without a message.
pub(crate) fn entries(events: Vec<Event>) -> Vec<Entry> {
    events.into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_output_shows_in_the_result() {
        let mut lost = Lost::default();
        lost.note(Stream::Stdout, 10);
        lost.note(Stream::Stdout, 20);
        let Event::Result { mut result, .. } = ended(&Jti::generate(), Outcome::Succeeded, "") else {
            panic!("a result")
        };
        result.stdout_summary.bytes = 100;
        lost.amend(&mut result);
        let summary = &result.stdout_summary;
        assert_eq!((summary.omitted_from, summary.omitted_bytes), (Some(10), 90));
        assert_eq!(result.stderr_summary, StreamSummary::default());
    }

    #[test]
    fn reasons_are_bounded_between_characters() {
        let Event::Rejected { detail, .. } =
            rejected(&Jti::generate(), Rejection::Exec, "ä".repeat(REASON_BYTES_MAX))
        else {
            panic!("a rejection")
        };
        assert_eq!(detail.len(), REASON_BYTES_MAX);
    }
}
