//! What Ansible says of each host: the lines that `signet_results.py` writes.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use serde::Deserialize;

use crate::deploy::model::{End, Happening, TargetStatus};
use crate::deploy::text::{blotted, reason};

/// One line.
#[derive(Debug, Deserialize)]
pub(in crate::deploy) struct Said {
    event: Event,
    pub(in crate::deploy) host: String,
    #[serde(default)]
    changed: bool,
    #[serde(default)]
    after: Option<String>,
    #[serde(default)]
    msg: String,
    #[serde(default)]
    stderr: String,
    #[serde(default)]
    elapsed_ms: Option<i64>,
}

/// What it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Event {
    Start,
    Ok,
    Failed,
    Unreachable,
    Skipped,
}

impl Said {
    /// As the target's own.
    pub(in crate::deploy) fn happening(&self, telltales: &[String]) -> Happening {
        let status = match self.event {
            Event::Start => return Happening::Started,
            Event::Ok => TargetStatus::Success,
            Event::Failed => TargetStatus::Failed,
            Event::Unreachable => TargetStatus::Unreachable,
            Event::Skipped => TargetStatus::Skipped,
        };
        let commit = self.after.clone().filter(|c| !c.is_empty() && c.len() <= COMMIT_BYTES_MAX);
        let reason = if status == TargetStatus::Success { String::new() } else { self.reason(telltales) };
        Happening::Ended(End {
            status,
            changed: self.changed,
            commit,
            reason,
            elapsed_ms: self.elapsed_ms,
            inferred: false,
        })
    }

    fn reason(&self, telltales: &[String]) -> String {
        let all = format!("{} {}", self.msg, self.stderr);
        if all.contains("REMOTE HOST IDENTIFICATION HAS CHANGED") {
            return "the host's key is not the one that was pinned: it is another machine, or its key was changed".into();
        }
        if all.contains("Host key verification failed") {
            return "the host's key is not known, or of another kind than the pinned one".into();
        }
        let text = reason(&blotted(&all, telltales));
        if text.is_empty() { "Ansible gave no reason".into() } else { text }
    }
}

/// A SHA-256 in hex.
const COMMIT_BYTES_MAX: usize = 64;

/// The file of results, read as it grows.
#[derive(Debug)]
pub(super) struct Results {
    path: PathBuf,
    at: u64,
    rest: Vec<u8>,
}

impl Results {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, at: 0, rest: Vec::new() }
    }

    /// What is new.
    pub(super) fn read(&mut self) -> io::Result<Vec<Said>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.at))?;
        let mut new = Vec::new();
        self.at += file.read_to_end(&mut new)? as u64;
        self.rest.extend(new);
        let whole = self.rest.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let lines: Vec<u8> = self.rest.drain(..whole).collect();
        let read = |line: &[u8]| match serde_json::from_slice::<Said>(line) {
            Ok(said) => Some(said),
            Err(error) => {
                tracing::warn!(%error, "a result of Ansible's can't be read");
                None
            }
        };
        Ok(lines.split(|b| *b == b'\n').filter(|line| !line.is_empty()).filter_map(read).collect())
    }
}
