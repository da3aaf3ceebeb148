//! What must be true when the dust has settled.

use std::collections::{BTreeMap, BTreeSet};
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

/// How often each mark was written on each host.
pub type Marks = BTreeMap<(String, String), usize>;

/// A host whose data directory was put back.
#[derive(Debug, Clone)]
pub struct PutBack {
    pub host: String,
    /// What had started there when the copy was taken; the copy's journal knows of these, and none starts again.
    pub held: BTreeSet<String>,
}

/// What the round allows beyond the strict rules.
#[derive(Debug, Clone, Default)]
pub struct Allowed {
    /// A host that was put back: its open deliveries are ended by an admin's word.
    pub put_back: Option<PutBack>,
    /// The marks of tasks that a restored database doesn't know.
    pub unknown: BTreeSet<String>,
}

/// Reads every host's marks.
pub fn marks(root: &Path, hosts: &[&str]) -> Marks {
    let mut all = BTreeMap::new();
    for host in hosts {
        let text = std::fs::read_to_string(root.join(format!("{host}.marks"))).unwrap_or_default();
        for mark in text.lines() {
            *all.entry(((*host).to_owned(), mark.to_owned())).or_insert(0) += 1;
        }
    }
    all
}

/// No command was started twice, but for those whose start a put-back copy did not hold; gives what is wrong.
pub fn check_starts(marks: &Marks, allowed: &Allowed) -> Vec<String> {
    let most = |host: &str, mark: &str| match &allowed.put_back {
        Some(back) if back.host == host && !back.held.contains(mark) => 2,
        _ => 1,
    };
    let twice = marks.iter().filter(|((host, mark), count)| **count > most(host, mark));
    twice.map(|((host, mark), count)| format!("{mark} was started {count} times on {host}")).collect()
}

/// Checks one task's targets; gives what is wrong.
pub fn check(asked: &Asked, detail: &Value, marks: &Marks, allowed: &Allowed) -> Vec<String> {
    let mut wrong = Vec::new();
    for target in detail["targets"].as_array().into_iter().flatten() {
        let host = target["hostname"].as_str().unwrap_or_default().to_owned();
        let started = marks.get(&(host.clone(), asked.mark.clone())).copied().unwrap_or(0);
        let aside = allowed.put_back.as_ref().is_some_and(|back| back.host == host);
        let fine = match target["state"].as_str().unwrap_or_default() {
            "succeeded" | "failed" => started >= 1 && target["exit_code"] == asked.exit_code,
            "expired" => aside || started == 0,
            // Its journal had `started` and no result; the process may not have come to its first line.
            "interrupted" => true,
            // An admin's word on a host that was set aside: it may have run, or was certainly never sent.
            "lost" => aside,
            "rejected" => aside && started == 0,
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
