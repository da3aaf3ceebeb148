//! `signet job`: deployments that were asked for, their logs, and what can still be done about them.

mod commits;
mod follow;
mod hints;
mod show;

use std::io::{self, Write};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use ureq::http::Method;

pub(super) use self::follow::begun;
pub(super) use self::show::strategy;
use super::given;
use crate::client::part;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::limits::JOBS_MAX;
use crate::table::{self, looking, plain};
use crate::term::Look;

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
        #[arg(long, value_enum, ignore_case = true, value_name = "STATUS")]
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
    ///
    /// Without COMMIT they go back to the one that all of them had before the last one came. Which one that is, is said
    /// before it starts, and where it is not clear one must be named. The last 18 jobs of the repository among the newest 100
    /// of all are looked at; whichever commit was deployed before can be named whole.
    Rollback {
        /// As job_123
        job: String,
        /// Id of the commit, or at least 7 characters of its beginning [default: the one before]
        commit: Option<String>,
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
            Action::Show { job } => show::show(context, &job),
            Action::Logs { job, follow: false } => follow::log(context, &job),
            // Who only watches leaves the job alone.
            Action::Logs { job, follow: true } => follow::follow(context, &job, None, None),
            Action::Retry { job, no_wait } => {
                let interrupt = Interrupt::take_over().map_err(io::Error::from)?;
                again(context, &job, "retry", &json!({}), no_wait, &interrupt)
            }
            Action::Rollback { job, commit, no_wait } => {
                let interrupt = Interrupt::take_over().map_err(io::Error::from)?;
                let commit = commits::chosen(context, &job, commit.as_deref())?;
                let body = json!({ "commit": commit });
                again(context, &job, "rollback", &body, no_wait, &interrupt)
            }
            Action::Cancel { job } => {
                let cancel = format!("{}/cancel", path(&job));
                let answer = context.client.send(&Method::POST, &cancel, &[], None)?;
                if context.json() {
                    return context.print_json(&answer);
                }
                match word(&answer["data"], "status") {
                    "PENDING" | "RUNNING" => writeln!(io::stdout(), "{job} is being cancelled")?,
                    status => writeln!(io::stdout(), "{job}: {status}")?,
                }
                Ok(Exit::Success)
            }
        }
    }
}

/// Makes a job of one that is over, and follows it.
fn again(
    context: &Context,
    job: &str,
    how: &str,
    body: &Value,
    no_wait: bool,
    interrupt: &Interrupt,
) -> Result<Exit, Failure> {
    let made = context.client.send_once(&Method::POST, &format!("{}/{how}", path(job)), body);
    let commit = [("commit".to_owned(), "COMMIT".to_owned())];
    let made = made.map_err(|error| given::options(error, &commit))?;
    begun(context, &made, no_wait, interrupt, None)
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
    if jobs.iter().any(|job| show::is_open(word(job, "status"))) {
        context.warn_when_paused();
    }
    Ok(Exit::Success)
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
