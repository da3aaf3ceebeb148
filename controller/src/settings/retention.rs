//! How long things are kept.

use super::sources::Raw;
use super::values::{SettingError, positive};

/// How long things are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// Output of commands, in days.
    pub output_days: u32,
    /// Most output in all, in bytes.
    pub output_bytes: u64,
    /// Tasks and runs, in days.
    pub task_days: u32,
    /// The audit trail, in days.
    pub audit_days: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self { output_days: 30, output_bytes: 20 << 30, task_days: 180, audit_days: 730 }
    }
}

impl Retention {
    pub(super) fn parse(raw: &Raw) -> Result<Self, SettingError> {
        let days = |name: &str, text: &Option<String>, default| positive(name, text.as_deref(), default);
        let default = Self::default();
        let gib = positive("SIGNET_RETENTION_OUTPUT_GIB", raw.retention_output_gib.as_deref(), 20)?;
        Ok(Self {
            output_days: days(
                "SIGNET_RETENTION_OUTPUT_DAYS",
                &raw.retention_output_days,
                default.output_days,
            )?,
            output_bytes: u64::from(gib) << 30,
            task_days: days("SIGNET_RETENTION_TASK_DAYS", &raw.retention_task_days, default.task_days)?,
            audit_days: days("SIGNET_RETENTION_AUDIT_DAYS", &raw.retention_audit_days, default.audit_days)?,
        })
    }
}
