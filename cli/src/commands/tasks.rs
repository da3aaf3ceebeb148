//! `signet tasks`: what was asked for, newest first.

use clap::Args;
use serde_json::Value;

use crate::api::Task;
use crate::client::parsed;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::table::{self, looking, plain};
use crate::term::state_look;

/// List tasks, newest first
#[derive(Debug, Args)]
pub(crate) struct Tasks {
    /// How many at most
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000), value_name = "NUMBER")]
    limit: u32,
}

impl Tasks {
    pub(crate) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let tasks = context.client.get(&format!("/api/tasks?limit={}", self.limit))?;
        context.warn_when_paused();
        if context.json() {
            return context.print_json(&tasks);
        }
        let Value::Array(tasks) = tasks else { return Ok(Exit::Success) };
        let mut rows = Vec::new();
        for task in &tasks {
            let task: Task = parsed(task)?;
            rows.push(vec![
                plain(&task.task_id),
                plain(&task.created_at),
                looking(state_look(&task.status), &task.status),
                plain(task.target()),
                plain(task.user.as_deref().unwrap_or("-")),
                plain(&task.command),
            ]);
        }
        table::print(context.term, &["TASK", "CREATED", "STATUS", "TARGET", "USER", "COMMAND"], rows)?;
        Ok(Exit::Success)
    }
}
