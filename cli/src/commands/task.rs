//! `signet task`: one task with its hosts.

use std::io::{self, Write};

use clap::{Args, Subcommand};

use super::watch::watch;
use crate::api::TaskDetail;
use crate::client::{parsed, part};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::table::{self, looking, plain};
use crate::term::{Look, state_look};
use crate::text::one_line;

/// Show a task and how it stands on every host, or write it as proof
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Task {
    #[command(subcommand)]
    action: Option<TaskAction>,
    /// The task's id
    #[arg(required = true)]
    id: Option<String>,
    /// Follow it to its end, with its output from the beginning; Ctrl-C cancels it
    #[arg(long, short)]
    follow: bool,
}

#[derive(Debug, Subcommand)]
enum TaskAction {
    /// Write the signed command, its approvals and the hosts' signed reports, for `signet verify`
    Bundle {
        /// The task's id
        id: String,
    },
}

impl Task {
    pub(crate) fn run(self, context: &Context) -> Result<Exit, Failure> {
        if let Some(TaskAction::Bundle { id }) = self.action {
            let (_, mut bundle) = context.client.bytes(&format!("/api/tasks/{}/bundle", part(&id)))?;
            let mut out = io::stdout().lock();
            io::copy(&mut bundle, &mut out)?;
            writeln!(out)?;
            return Ok(Exit::Success);
        }
        let id = self.id.unwrap_or_default();
        if self.follow {
            let interrupt = Interrupt::take_over().map_err(io::Error::from)?;
            return watch(context, &id, &interrupt);
        }
        let answer = context.client.get(&format!("/api/tasks/{}", part(&id)))?;
        if context.json() {
            return context.print_json(&answer);
        }
        show(context, &parsed(&answer)?)?;
        Ok(Exit::Success)
    }
}

/// Shows a task for a person.
///
/// # Errors
/// When standard output can't be written to.
pub(crate) fn show(context: &Context, detail: &TaskDetail) -> io::Result<()> {
    let TaskDetail { task, paused, targets } = detail;
    if let Some(reason) = paused {
        context.warn_of_pause(reason);
    }
    let mut out = io::stdout().lock();
    let mut line = |name: &str, value: &str| writeln!(out, "{name:<9}{}", one_line(value, usize::MAX));
    line("task", &task.task_id)?;
    line("status", &task.status)?;
    line("target", &task.target())?;
    line("command", &task.command)?;
    line("user", task.user.as_deref().unwrap_or("(the agent's own)"))?;
    line("timeout", &format!("{} s", task.timeout))?;
    line("created", &task.created_at)?;
    if let Some(approval) = &task.approval {
        let by: Vec<&str> = approval.approvals.iter().map(|given| given.name.as_str()).collect();
        let by = if by.is_empty() { String::new() } else { format!(" by {}", by.join(", ")) };
        let (state, given, needed) = (&approval.state, approval.approvals.len(), approval.needed);
        line("approval", &format!("{state}, {given} of {needed}{by}"))?;
    }
    writeln!(out)?;
    drop(out);
    let rows = targets.iter().map(|target| {
        let state =
            if target.cancelling { format!("{} (cancelling)", target.state) } else { target.state.clone() };
        vec![
            looking(Look::Bold, &target.hostname),
            looking(state_look(&target.state), state),
            plain(target.exit_code.map_or_else(|| "-".to_owned(), |code| code.to_string())),
            plain(target.started_at.as_deref().unwrap_or("-")),
            plain(target.finished_at.as_deref().unwrap_or("-")),
            plain(&target.reason),
        ]
    });
    table::print(context.term, &["HOST", "STATE", "EXIT", "STARTED", "FINISHED", "REASON"], rows.collect())
}
