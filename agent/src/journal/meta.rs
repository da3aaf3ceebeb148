//! What is known about a log beside its events: the small file `log.json`.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use signet_common::ids::LogId;

use super::segment::sync_dir;

/// The file's name.
const NAME: &str = "log.json";

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    /// The log's id.
    pub log_id: LogId,
    /// Everything issued before this (the controller's time, whole seconds since 1970) is refused. Absent until the
    /// first hello of this log was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<i64>,
    /// The last event that the controller has, by its own word.
    #[serde(default)]
    pub confirmed: u64,
    /// The newest `iat` that was verified when this was written, whole seconds since 1970.
    #[serde(default)]
    pub time: i64,
    /// The kernel's id of the boot in which the agent last worked on this log.
    #[serde(default)]
    pub boot_id: String,
}

impl Meta {
    /// A new log.
    pub(super) fn new(log_id: LogId, boot_id: String) -> Self {
        Self { log_id, not_before: None, confirmed: 0, time: 0, boot_id }
    }

    /// Reads it; `None` when there is no log here.
    pub(super) fn read(dir: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read(dir.join(NAME)) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        serde_json::from_slice(&text).map(Some).map_err(io::Error::from)
    }

    /// Writes it, all or nothing.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        let text = serde_json::to_vec(self).map_err(io::Error::from)?;
        replace(&dir.join(NAME), &text)
    }
}

/// Puts a private file (0600) in the place of another, all or nothing and durably.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let temporary = path.with_extension("new");
    let mut file: File =
        File::options().create(true).write(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_dir(parent)
}
