//! `signet cancel`: end a task everywhere.

use std::io::{self, Write};

use clap::Args;
use ureq::http::Method;

use crate::api::{Target, TaskDetail};
use crate::client::{parsed, part};
use crate::context::Context;
use crate::exit::{Exit, Failure};

/// Cancel what is open of a task: what runs is ended, what waits never starts
#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// The task's id
    id: String,
}

impl Cancel {
    pub(crate) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let path = format!("/api/tasks/{}/cancel", part(&self.id));
        let answer = context.client.send(&Method::POST, &path, &[], None)?;
        if context.json() {
            return context.print_json(&answer);
        }
        let detail: TaskDetail = parsed(&answer)?;
        let count = |test: &dyn Fn(&Target) -> bool| detail.targets.iter().filter(|t| test(t)).count();
        let open = count(&|t| !t.is_final());
        let cancelled = count(&|t| t.state == "cancelled");
        let ended = detail.targets.len() - open - cancelled;
        writeln!(io::stdout(), "{cancelled} cancelled, {open} being cancelled, {ended} had ended")?;
        Ok(Exit::Success)
    }
}
