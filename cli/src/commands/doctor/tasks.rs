//! The host's newest tasks.

use serde_json::Value;

use super::host::Host;
use super::{Finding, info, warn};
use crate::api::{Task, TaskDetail};
use crate::client::{ClientError, parsed, part};
use crate::context::Context;
use crate::limits::DOCTOR_TASKS_MAX;

/// What became of the host's newest tasks.
pub(super) fn newest(context: &Context, host: &Host) -> Result<Vec<Finding>, ClientError> {
    let mut findings = Vec::new();
    for task in asked(context, host)? {
        let detail = context.client.get(&format!("/api/tasks/{}", part(&task.task_id)))?;
        let detail: TaskDetail = parsed(&detail)?;
        let Some(target) = detail.targets.into_iter().find(|t| t.hostname == host.hostname) else { continue };
        let found = || format!("{} {}", task.task_id, target.ending());
        findings.extend(match target.state.as_str() {
            "waiting" if detail.task.status == "awaiting_approval" => {
                let hint = format!("others must agree: signet approve {}", task.task_id);
                Some(info("task", format!("{} waits for approval", task.task_id), hint))
            }
            "waiting" => {
                Some(warn("task", format!("{} waits to be sent", task.task_id), "see what is not ok above"))
            }
            "rejected" => Some(warn("task", found(), "the host or the controller refused it")),
            "expired" => {
                Some(warn("task", found(), "it was not reached in time; ask again, or use --expires-in"))
            }
            "lost" | "interrupted" => {
                Some(warn("task", found(), "nobody knows whether it did its work; look there"))
            }
            _ => None,
        });
    }
    Ok(findings)
}

/// The host's newest tasks, whichever way they name it.
fn asked(context: &Context, host: &Host) -> Result<Vec<Task>, ClientError> {
    let mut targets =
        vec![("node", Some(host.hostname.clone())), ("group", Some(host.group.clone())), ("all", None)];
    targets.extend(host.labels.iter().map(|(name, value)| ("label", Some(format!("{name}={value}")))));
    let mut tasks: Vec<Task> = Vec::new();
    for (kind, target) in targets {
        let target = target.map_or_else(String::new, |target| format!("&target={}", part(&target)));
        let path = format!("/api/tasks?target_type={kind}{target}&limit={DOCTOR_TASKS_MAX}");
        let Value::Array(some) = context.client.get(&path)? else { continue };
        tasks.extend(some.iter().map(parsed).collect::<Result<Vec<_>, _>>()?);
    }
    tasks.sort_by(|a, b| b.created_at.cmp(&a.created_at));
    tasks.truncate(DOCTOR_TASKS_MAX);
    Ok(tasks)
}
