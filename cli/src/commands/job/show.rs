//! How a job stands, for a person.

use std::io::{self, Write};

use serde_json::Value;
use signet_common::time::Micros;

use super::{look, path, word};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::table::{self, looking, plain};
use crate::term::Look;
use crate::text::one_line;

/// Shows a job, what it was asked for, why it waits, and where its hosts stand.
///
/// # Errors
/// When the controller fails, or standard output can't be written to.
pub(super) fn show(context: &Context, id: &str) -> Result<Exit, Failure> {
    let answer = context.client.get(&path(id))?;
    let job = &answer["data"];
    if context.json() {
        return context.print_json(job);
    }
    let mut out = io::stdout().lock();
    for (name, text) in fields(job) {
        let name = context.term.paint(Look::Dim, &format!("{name:<12}"));
        writeln!(out, "{name}{}", one_line(&text, usize::MAX))?;
    }
    writeln!(out)?;
    drop(out);
    let row = |target: &Value| {
        vec![
            plain(word(target, "host")),
            looking(look(word(target, "status")), word(target, "status")),
            plain(target["changed"].as_bool().map_or("-", |changed| if changed { "yes" } else { "no" })),
            plain(word(target, "commit").chars().take(12).collect::<String>()),
            plain(word(target, "reason")),
        ]
    };
    let header = ["HOST", "STATUS", "CHANGED", "COMMIT", "REASON"];
    table::print(context.term, &header, list(&job["targets"]).iter().map(row).collect())?;
    for hint in super::hints::of(job) {
        context.term.say(Look::Warn, &hint);
    }
    if is_open(word(job, "status")) {
        context.warn_when_paused();
    }
    Ok(Exit::Success)
}

/// Whether a job with this status is not over.
pub(super) fn is_open(status: &str) -> bool {
    matches!(status, "PENDING" | "RUNNING")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// What is known of a job, in lines of a name and a text.
fn fields(job: &Value) -> Vec<(&'static str, String)> {
    let text = |name: &str| job[name].as_str().map(str::to_owned);
    let status = word(job, "status");
    let reason = text("reason").map(|why| format!(" ({why})")).unwrap_or_default();
    let mut fields = vec![("job", word(job, "job_id").to_owned()), ("status", format!("{status}{reason}"))];
    let mut add = |name, text: Option<String>| fields.extend(text.map(|text| (name, text)));
    add("waits", waits(job));
    add("repository", text("git_repo"));
    add("branch", Some(text("git_branch").unwrap_or_else(|| "(the repository's own)".into())));
    add("path", text("dest_path"));
    add("commit", text("commit"));
    add("asked by", text("requested_by"));
    add("retry of", text("retry_of"));
    let back = &job["rollback"];
    add("back to", back["commit"].as_str().map(|commit| format!("{commit}, as {}", word(back, "job_id"))));
    add("asked at", text("requested_at"));
    add("started at", text("started_at"));
    add("ended at", text("finished_at"));
    add("took", took(job));
    add("timeout", job["timeout"].as_u64().map(|seconds| format!("{seconds} s")));
    add("user", text("user"));
    add("hosts", Some(rolling(job)));
    add("force", (job["force"] == true).then(|| "yes".into()));
    for (name, text) in strategy(&job["releases"]) {
        add(name, Some(text));
    }
    fields
}

/// Why nothing of it runs now, or soon no more.
pub(super) fn waits(job: &Value) -> Option<String> {
    if !is_open(word(job, "status")) {
        return None;
    }
    if job["cancelling"] == true {
        return Some("it is being cancelled".into());
    }
    let approval = &job["approval"];
    if approval["state"] != "awaiting" {
        return None;
    }
    let given = list(&approval["approvals"]).len() as u64;
    let more = approval["needed"].as_u64().unwrap_or_default().saturating_sub(given);
    let (task, until) = (word(approval, "task_id"), word(approval, "not_after"));
    Some(format!("for {more} more to approve it until {until}: `signet approve {task}`"))
}

/// How long it took, from its start.
fn took(job: &Value) -> Option<String> {
    let at = |name: &str| Micros::parse_rfc3339(job[name].as_str()?);
    let micros = at("finished_at")?.0 - at("started_at")?.0;
    Some(format!("{} s", micros / 1_000_000))
}

/// How it goes from host to host.
fn rolling(job: &Value) -> String {
    let mut words = Vec::new();
    words.push(if job["run_mode"] == "serial" { "one after the other".into() } else { "at once".to_owned() });
    if let Some(batch) = job["batch"].as_str() {
        words = vec![format!("{batch} at a time")];
    }
    match &job["canary"] {
        Value::Null => {}
        Value::Array(names) => {
            let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
            words.push(format!("{} first", names.join(", ")));
        }
        count => words.push(format!("{count} first")),
    }
    if let Some(seconds) = job["pause"].as_u64() {
        words.push(format!("{seconds} s between"));
    }
    if let Some(order) = job["order"].as_str() {
        words.push(format!("in order {order}"));
    }
    if let Some(most) = job["max_failures"].as_u64() {
        words.push(format!("until more than {most} failed"));
    }
    words.join(", ")
}

/// How a deployment is made: in releases with their hooks, each in a line of its own, or in place.
pub(in crate::commands) fn strategy(releases: &Value) -> Vec<(&'static str, String)> {
    if !releases.is_object() {
        return vec![("strategy", "in place".into())];
    }
    let keep = releases["keep"].as_u64().map(|keep| format!(", keep {keep}")).unwrap_or_default();
    let mut lines = vec![("strategy", format!("releases{keep}"))];
    // Hooks are texts; a shared path may say how it is linked.
    let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    for name in ["shared", "build", "activate"] {
        lines.extend(list(&releases[name]).iter().map(|text| (name, shown(text))));
    }
    let health = &releases["health"];
    if health.is_object() {
        let probe = &health["probe"];
        let asked = probe["command"].as_str().map(str::to_owned).unwrap_or_else(|| {
            format!("{} answers {}", word(&probe["http"], "url"), probe["http"]["expect_status"])
        });
        let (attempts, timeout, pause) = (&health["attempts"], &health["timeout"], &health["pause"]);
        let how = format!("{asked} ({attempts} times at most, {timeout} s each, {pause} s between)");
        lines.push(("health", how));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_job_that_waits_says_why() {
        let approval = json!({ "task_id": "t", "state": "awaiting", "needed": 2, "not_after": "then",
            "approvals": [{ "name": "bob" }] });
        let job = json!({ "status": "PENDING", "cancelling": false, "approval": approval });
        assert_eq!(waits(&job).unwrap(), "for 1 more to approve it until then: `signet approve t`");
        let job = json!({ "status": "RUNNING", "cancelling": true });
        assert_eq!(waits(&job).unwrap(), "it is being cancelled");
        assert_eq!(waits(&json!({ "status": "SUCCESS", "cancelling": false, "approval": approval })), None);
        assert_eq!(waits(&json!({ "status": "RUNNING", "cancelling": false })), None);
    }

    #[test]
    fn what_was_asked_for_is_readable() {
        let releases = json!({ "keep": 5, "build": ["make", "make check"],
            "health": { "probe": { "http": { "url": "http://h/", "expect_status": 200 } }, "timeout": 10, "attempts": 5,
                "pause": 2 } });
        let job = json!({ "job_id": "job_1", "status": "SUCCESS", "git_repo": "https://h/r", "git_branch": null,
            "started_at": "2026-01-01T00:00:00Z", "finished_at": "2026-01-01T00:01:05Z", "requested_by": "alice",
            "canary": ["web1"], "pause": 30, "batch": "20%", "releases": releases });
        let fields = fields(&job);
        let has = |name: &str, text: &str| fields.contains(&(name, text.to_owned()));
        assert!(has("took", "65 s") && has("asked by", "alice"), "{fields:?}");
        assert!(has("hosts", "20% at a time, web1 first, 30 s between"), "{fields:?}");
        assert!(has("strategy", "releases, keep 5") && has("build", "make") && has("build", "make check"));
        assert!(
            has("health", "http://h/ answers 200 (5 times at most, 10 s each, 2 s between)"),
            "{fields:?}"
        );
        assert_eq!(strategy(&Value::Null), [("strategy", "in place".to_owned())]);
    }
}
