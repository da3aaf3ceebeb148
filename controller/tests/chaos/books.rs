//! What must be true when the dust has settled.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

/// A command that was asked for.
#[derive(Debug, Clone)]
pub struct Asked {
    pub task_id: String,
    /// Written to the host's marks by the command itself when it starts.
    pub mark: String,
    pub exit_code: i64,
}

/// What the round allows beyond the strict rules.
#[derive(Debug, Clone, Default)]
pub struct Allowed {
    /// Hosts that were set aside, or whose past was put back.
    pub aside: Vec<String>,
}

/// How often each mark was written on each host.
pub fn marks(root: &Path, hosts: &[String]) -> BTreeMap<(String, String), usize> {
    let mut all = BTreeMap::new();
    for host in hosts {
        let text = std::fs::read_to_string(root.join(format!("{host}.marks"))).unwrap_or_default();
        for mark in text.lines() {
            *all.entry((host.clone(), mark.to_owned())).or_insert(0) += 1;
        }
    }
    all
}

/// Checks one task's targets; gives what is wrong.
pub fn check(
    asked: &Asked,
    detail: &Value,
    marks: &BTreeMap<(String, String), usize>,
    allowed: &Allowed,
) -> Vec<String> {
    let mut wrong = Vec::new();
    for target in detail["targets"].as_array().into_iter().flatten() {
        let host = target["hostname"].as_str().unwrap_or_default().to_owned();
        if allowed.aside.contains(&host) {
            continue;
        }
        let started = marks.get(&(host.clone(), asked.mark.clone())).copied().unwrap_or(0);
        let state = target["state"].as_str().unwrap_or_default();
        let fine = match state {
            "succeeded" | "failed" => started == 1 && target["exit_code"] == asked.exit_code,
            "expired" => started == 0,
            // Its journal had `started` and no result; the process may not have come to its first line.
            "interrupted" => started <= 1,
            _ => false,
        };
        if !fine {
            wrong.push(format!(
                "{} on {host}: started {started} times, expected {}: {target}",
                asked.mark, asked.exit_code
            ));
        }
    }
    wrong
}
