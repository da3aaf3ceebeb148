//! `signet job`: deployments that were asked for, their logs, and what can still be done about them.

use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use ureq::http::Method;

use crate::client::{ClientError, part};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::limits::{JOBS_MAX, LOST_MAX, TICK};
use crate::table::{self, looking, plain};
use crate::term::{Look, Term};
use crate::text::visible;

/// List deployments, show one or its log, do it once more, go back, or cancel it
#[derive(Debug, Args)]
pub(crate) struct Job {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List jobs, newest first
    List {
        /// How many at most
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=JOBS_MAX), value_name = "NUMBER")]
        limit: u32,
        /// Only jobs that stand there
        #[arg(long, value_enum, value_name = "STATUS")]
        status: Option<Status>,
    },
    /// Show a job and where its hosts stand
    Show {
        /// As job_123
        job: String,
    },
    /// Print a job's log
    Logs {
        /// As job_123
        job: String,
        /// Go on until the job is over; the exit code is the job's
        #[arg(long)]
        follow: bool,
    },
    /// Do it once more, as a new job, and follow its log
    Retry {
        /// As job_123
        job: String,
        /// Print the new job's id and don't wait
        #[arg(long)]
        no_wait: bool,
    },
    /// Bring its hosts back to a commit that was deployed there before, as a new job, and follow its log
    Rollback {
        /// As job_123
        job: String,
        /// The whole id of the commit
        commit: String,
        /// Print the new job's id and don't wait
        #[arg(long)]
        no_wait: bool,
    },
    /// End a job before its time
    Cancel {
        /// As job_123
        job: String,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Status {
    Pending,
    Running,
    Success,
    Failed,
    Cancelled,
}

fn path(id: &str) -> String {
    format!("/api/v1/jobs/{}", part(id))
}

fn word<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or("-")
}

impl Job {
    pub(crate) fn run(self, context: &Context) -> Result<Exit, Failure> {
        match self.action {
            Action::List { limit, status } => list(context, limit, status),
            Action::Show { job } => show(context, &job),
            Action::Logs { job, follow: false } => log(context, &job),
            // Who only watches leaves the job alone.
            Action::Logs { job, follow: true } => follow(context, &job, None, None),
            Action::Retry { job, no_wait } => again(context, &job, "retry", &json!({}), no_wait),
            Action::Rollback { job, commit, no_wait } => {
                again(context, &job, "rollback", &json!({ "commit": commit }), no_wait)
            }
            Action::Cancel { job } => {
                let cancel = format!("{}/cancel", path(&job));
                let answer = context.client.send(&Method::POST, &cancel, &[], None)?;
                if context.json() {
                    return context.print_json(&answer);
                }
                writeln!(io::stdout(), "{job}: {}", word(&answer["data"], "status"))?;
                Ok(Exit::Success)
            }
        }
    }
}

/// Makes a job of one that is over, and follows it.
fn again(context: &Context, job: &str, how: &str, body: &Value, no_wait: bool) -> Result<Exit, Failure> {
    let interrupt = Interrupt::take_over().map_err(io::Error::from)?;
    let made = context.client.send_once(&Method::POST, &format!("{}/{how}", path(job)), body)?;
    begun(context, &made, no_wait, &interrupt, None)
}

fn list(context: &Context, limit: u32, status: Option<Status>) -> Result<Exit, Failure> {
    let only = status.and_then(|s| s.to_possible_value()).map(|s| format!("&status={}", s.get_name()));
    let query = format!("/api/v1/jobs?page_size={limit}{}", only.unwrap_or_default());
    let page = context.client.get(&query)?;
    if context.json() {
        return context.print_json(&page["data"]["items"]);
    }
    let jobs = page["data"]["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let row = |job: &Value| {
        vec![
            plain(word(job, "job_id")),
            plain(word(job, "requested_at")),
            looking(look(word(job, "status")), word(job, "status")),
            plain(job["targets_count"].to_string()),
            plain(word(job, "git_repo")),
            plain(word(job, "git_branch")),
        ]
    };
    let header = ["JOB", "REQUESTED", "STATUS", "HOSTS", "REPOSITORY", "BRANCH"];
    table::print(context.term, &header, jobs.iter().map(row).collect())?;
    Ok(Exit::Success)
}

fn show(context: &Context, id: &str) -> Result<Exit, Failure> {
    let job = context.client.get(&path(id))?;
    let job = &job["data"];
    if context.json() {
        return context.print_json(job);
    }
    let reason = job["reason"].as_str().map(|why| format!(" ({why})")).unwrap_or_default();
    let said = format!("{id}: {} {}{reason}", word(job, "git_repo"), word(job, "status"));
    writeln!(io::stdout(), "{}", visible(said.as_bytes()))?;
    let row = |target: &Value| {
        vec![
            plain(word(target, "host")),
            looking(look(word(target, "status")), word(target, "status")),
            plain(target["changed"].as_bool().map_or("-", |changed| if changed { "yes" } else { "no" })),
            plain(word(target, "commit").chars().take(12).collect::<String>()),
            plain(word(target, "reason")),
        ]
    };
    let targets = job["targets"].as_array().map(Vec::as_slice).unwrap_or_default();
    let header = ["HOST", "STATUS", "CHANGED", "COMMIT", "REASON"];
    table::print(context.term, &header, targets.iter().map(row).collect())?;
    Ok(Exit::Success)
}

/// The log as it is now.
fn log(context: &Context, id: &str) -> Result<Exit, Failure> {
    let mut tail = Tail::new(context, id);
    while !tail.next()?.is_empty() {}
    Ok(Exit::Success)
}

/// What is to be done once a job was made.
///
/// # Errors
/// When the controller fails, or standard output can't be written to.
pub(crate) fn begun(
    context: &Context,
    made: &Value,
    no_wait: bool,
    interrupt: &Interrupt,
    wait: Option<Duration>,
) -> Result<Exit, Failure> {
    let id = word(&made["data"], "job_id");
    if !no_wait {
        return follow(context, id, Some(interrupt), wait);
    }
    if context.json() {
        return context.print_json(&made["data"]);
    }
    writeln!(io::stdout(), "{id}")?;
    Ok(Exit::Success)
}

/// Shows the log as it grows, until the job is over or `wait` has passed. The first Ctrl-C asks to cancel the job.
fn follow(
    context: &Context,
    id: &str,
    interrupt: Option<&Interrupt>,
    wait: Option<Duration>,
) -> Result<Exit, Failure> {
    let begun = Instant::now();
    let mut tail = Tail::new(context, id);
    let mut cancelled = false;
    loop {
        let quiet = tail.next()?.is_empty();
        if tail.finished {
            break;
        }
        if interrupt.is_some_and(Interrupt::pressed) && !cancelled {
            cancelled = true;
            cancel(context, id)?;
        }
        if wait.is_some_and(|wait| begun.elapsed() >= wait) {
            tail.bar.finish_and_clear();
            context.term.say(Look::Warn, &format!("{id} goes on; `signet job logs {id} --follow` shows it"));
            return Ok(Exit::Unfinished);
        }
        if quiet {
            tail.tick();
            thread::sleep(TICK);
        }
    }
    tail.bar.finish_and_clear();
    let job = patiently(|| context.client.get(&path(id)))?;
    let status = word(&job["data"], "status");
    if !context.json() {
        let reason = job["data"]["reason"].as_str().map(|why| format!(" ({why})")).unwrap_or_default();
        context.term.say(look(status), &format!("{id}: {status}{reason}"));
    }
    Ok(match status {
        "SUCCESS" => Exit::Success,
        "CANCELLED" if cancelled => Exit::Interrupted,
        _ => Exit::SomeFailed,
    })
}

/// Asks to cancel a job. That it was over a moment before is no error.
fn cancel(context: &Context, id: &str) -> Result<(), ClientError> {
    let cancel = format!("{}/cancel", path(id));
    match patiently(|| context.client.send(&Method::POST, &cancel, &[], None)) {
        Ok(_) | Err(ClientError::Refused { status: 409, .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// A log that is read as it grows.
struct Tail<'a> {
    context: &'a Context,
    path: String,
    from: i64,
    finished: bool,
    /// On a terminal: how many hosts are done.
    bar: ProgressBar,
}

impl<'a> Tail<'a> {
    fn new(context: &'a Context, id: &str) -> Self {
        let wanted = context.term.stderr && !context.json();
        let drawn = if wanted { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, drawn);
        let style = ProgressStyle::with_template("{spinner} {pos}/{len} hosts{msg} ({elapsed})");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        Self { context, path: path(id), from: 0, finished: false, bar }
    }

    /// Prints what is new, and gives it. A controller that is away for a while is waited for.
    fn next(&mut self) -> Result<Vec<Value>, Failure> {
        let query = format!("{}/logs?format=json&from_id={}", self.path, self.from);
        let mut page = patiently(|| self.context.client.get(&query))?;
        let lines = page["data"]["lines"].as_array_mut().map(std::mem::take).unwrap_or_default();
        self.bar.suspend(|| lines.iter().try_for_each(|line| print(self.context, line)))?;
        self.from = page["data"]["next_from_id"].as_i64().unwrap_or(self.from);
        self.finished = page["data"]["finished"] == true;
        Ok(lines)
    }

    /// Time has passed: the progress line moves.
    fn tick(&self) {
        if self.bar.is_hidden() {
            return;
        }
        // It only decorates: that it can't be asked is told by the log.
        let Ok(job) = self.context.client.get(&self.path) else { return };
        let targets = job["data"]["targets"].as_array().map(Vec::as_slice).unwrap_or_default();
        let count = |all: &[&str]| targets.iter().filter(|t| all.contains(&word(t, "status"))).count();
        let (open, running) = (count(&["PENDING", "RUNNING"]), count(&["RUNNING"]));
        let good = count(&["SUCCESS"]);
        let bad = targets.len() - open - good;
        let mut message = format!(", {running} running");
        if bad > 0 {
            message.push_str(&format!(", {bad} without success"));
        }
        self.bar.set_length(targets.len() as u64);
        self.bar.set_position((targets.len() - open) as u64);
        self.bar.set_message(message);
        self.bar.tick();
    }
}

/// Asks until there is an answer, or the controller was away for too long.
fn patiently(ask: impl Fn() -> Result<Value, ClientError>) -> Result<Value, ClientError> {
    let begun = Instant::now();
    loop {
        match ask() {
            Err(error) if error.passes() && begun.elapsed() < LOST_MAX => thread::sleep(TICK),
            answer => return answer,
        }
    }
}

/// A line of the log: an object for a program, coloured on a terminal, else as it is.
fn print(context: &Context, line: &Value) -> io::Result<()> {
    if context.json() {
        return writeln!(io::stdout(), "{line}");
    }
    let text = line["line"].as_str().unwrap_or_default();
    let term: Term = context.term;
    if term.stdout {
        writeln!(io::stdout(), "{}", term.paint(line_look(text), &visible(text.as_bytes())))
    } else {
        writeln!(io::stdout(), "{text}")
    }
}

/// How a line looks, as Ansible colours it.
fn line_look(line: &str) -> Look {
    let starts = |words: &[&str]| words.iter().any(|word| line.starts_with(word));
    match line {
        _ if starts(&["PLAY ", "TASK "]) => Look::Bold,
        _ if starts(&["ok: "]) => Look::Good,
        _ if starts(&["changed: ", "cancelled: "]) => Look::Warn,
        _ if starts(&["fatal: ", "failed: ", "unreachable: "]) => Look::Bad,
        _ if starts(&["skipping: ", "pause of "]) => Look::Dim,
        _ => Look::Plain,
    }
}

/// How the status of a job or of its target looks.
fn look(status: &str) -> Look {
    match status {
        "SUCCESS" => Look::Good,
        "FAILED" | "UNREACHABLE" => Look::Bad,
        "CANCELLED" | "SKIPPED" => Look::Warn,
        _ => Look::Plain,
    }
}
