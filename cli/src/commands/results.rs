//! `signet results`: what every host answered.

use std::collections::BTreeMap;
use std::io::{self, Write};

use clap::Args;
use serde::Deserialize;

use crate::api::Task;
use crate::client::{parsed, part};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::term::Look;
use crate::text::one_line;

/// Show the results of a task; identical ones once
///
/// The exit code is that of `signet run`: 1 when some host failed; 4 while some host has not answered.
#[derive(Debug, Args)]
pub(crate) struct Results {
    /// The task's id
    id: String,
}

#[derive(Debug, Deserialize)]
struct ResultRow {
    hostname: String,
    state: String,
    exit_code: i64,
    stdout: String,
    stderr: String,
}

impl Results {
    pub(crate) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let mut same: BTreeMap<(bool, String, String, String), Vec<String>> = BTreeMap::new();
        context.client.list(&format!("/api/tasks/{}/results", part(&self.id)), |row| {
            let result: ResultRow = parsed(&row)?;
            let failed = result.state != "succeeded";
            let (mut stdout, mut stderr) = (result.stdout, result.stderr);
            if context.json() {
                // Only the verdict is still needed.
                (stdout, stderr) = Default::default();
                context.print_json_line(&row)?;
            }
            let ending = match (result.state.as_str(), result.exit_code) {
                ("succeeded", _) => String::new(),
                ("failed", code) => format!("exit {code}"),
                (state, _) => state.replace('_', " "),
            };
            same.entry((failed, ending, stdout, stderr)).or_default().push(result.hostname);
            Ok::<_, Failure>(true)
        })?;
        let some_failed = same.keys().any(|(failed, ..)| *failed);
        if !context.json() {
            let mut out = io::stdout().lock();
            for ((_, ending, stdout, stderr), hosts) in &same {
                let names = context.term.paint(Look::Bold, &hosts.join(", "));
                let count = if hosts.len() > 1 { format!(" ({})", hosts.len()) } else { String::new() };
                let ending = if ending.is_empty() {
                    String::new()
                } else {
                    format!(" [{}]", one_line(ending, usize::MAX))
                };
                writeln!(out, "{names}{count}:{}", context.term.paint(Look::Bad, &ending))?;
                for text in [stdout, stderr].into_iter().filter(|text| !text.is_empty()) {
                    out.write_all(&context.term.bytes(text.as_bytes()))?;
                    if !text.ends_with('\n') {
                        writeln!(out)?;
                    }
                }
            }
        }
        let task: Task = parsed(&context.client.get(&format!("/api/tasks/{}", part(&self.id)))?)?;
        if task.is_open() {
            context
                .term
                .warn(&format!("not every host has answered yet: signet task --follow {}", task.task_id));
            return Ok(Exit::Unfinished);
        }
        Ok(if some_failed { Exit::SomeFailed } else { Exit::Success })
    }
}
