//! A job's log as it grows, and how the job ended.

use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use ureq::http::Method;

use super::show::waits;
use super::{look, path, word};
use crate::client::ClientError;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::limits::{LOST_MAX, TICK};
use crate::term::{Look, Term};
use crate::text::visible;

/// The log as it is now.
pub(super) fn log(context: &Context, id: &str) -> Result<Exit, Failure> {
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
    let made = &made["data"];
    let id = word(made, "job_id");
    if !no_wait {
        context.warn_when_paused();
        return follow(context, id, Some(interrupt), wait);
    }
    if context.json() {
        // It is made, whatever comes of this question.
        let known = context.client.get(&path(id)).map(|mut job| job["data"].take());
        context.print_json_line(known.as_ref().unwrap_or(made))?;
    } else {
        writeln!(io::stdout(), "{id}")?;
    }
    context.warn_when_paused();
    Ok(Exit::Success)
}

/// Shows the log as it grows, until the job is over or `wait` has passed. The first Ctrl-C asks to cancel the job. A program
/// gets the job as the last line, however it ends.
pub(super) fn follow(
    context: &Context,
    id: &str,
    interrupt: Option<&Interrupt>,
    wait: Option<Duration>,
) -> Result<Exit, Failure> {
    let mut tail = Tail::new(context, id);
    tail.will_end_with(interrupt);
    let ended = tail.print_all(interrupt, wait);
    tail.bar.finish_and_clear();
    let end = match ended {
        Ok(end) => end,
        Err(error) => {
            if context.json() {
                context.print_json_line(&tail.known())?;
            }
            return Err(error);
        }
    };
    let job = patiently(|| context.client.get(&path(id)))?["data"].take();
    if context.json() {
        context.print_json_line(&job)?;
    }
    let status = word(&job, "status");
    let cancelled = match end {
        End::Over { cancelled } => cancelled,
        End::Waited => {
            context.term.say(Look::Warn, &format!("{id} goes on; `signet job logs {id} --follow` shows it"));
            return Ok(Exit::Unfinished);
        }
    };
    if !context.json() {
        let reason = job["reason"].as_str().map(|why| format!(" ({why})")).unwrap_or_default();
        context.term.say(look(status), &format!("{id}: {status}{reason}"));
        for hint in super::hints::of(&job) {
            context.term.say(Look::Warn, &hint);
        }
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
        Ok(_) => {
            context.term.say(Look::Warn, &format!("asked {id} to cancel; Ctrl-C again leaves it"));
            Ok(())
        }
        Err(ClientError::Refused { status: 409, .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Why a log is followed no longer.
enum End {
    /// The job is over; whether it was asked to cancel here.
    Over { cancelled: bool },
    /// The time for it has passed.
    Waited,
}

/// A log that is read as it grows.
struct Tail<'a> {
    context: &'a Context,
    id: String,
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
        Self { context, id: id.to_owned(), path: path(id), from: 0, finished: false, bar }
    }

    /// The job, as far as that can be said now.
    fn known(&self) -> Value {
        let job = self.context.client.get(&self.path).map(|mut job| job["data"].take());
        job.unwrap_or_else(|_| json!({ "job_id": self.id }))
    }

    /// A program gets the job even when it is left alone.
    fn will_end_with(&self, interrupt: Option<&Interrupt>) {
        if let Some(interrupt) = interrupt.filter(|_| self.context.json()) {
            interrupt.ends_with(self.known().to_string());
        }
    }

    /// Prints all of it.
    fn print_all(&mut self, interrupt: Option<&Interrupt>, wait: Option<Duration>) -> Result<End, Failure> {
        let begun = Instant::now();
        let mut cancelled = false;
        loop {
            let quiet = self.next()?.is_empty();
            if self.finished {
                return Ok(End::Over { cancelled });
            }
            if interrupt.is_some_and(Interrupt::pressed) && !cancelled {
                cancelled = true;
                self.bar.suspend(|| cancel(self.context, &self.id))?;
                self.will_end_with(interrupt);
            }
            if wait.is_some_and(|wait| begun.elapsed() >= wait) {
                return Ok(End::Waited);
            }
            if quiet {
                self.tick();
                thread::sleep(TICK);
            }
        }
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
        if let Some(why) = waits(&job["data"]) {
            message.push_str(&format!(", waiting: {why}"));
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
