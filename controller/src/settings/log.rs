//! What is logged, and how.

use tracing_subscriber::filter::Targets;

use super::sources::Raw;
use super::values::{SettingError, word, wrong};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// How lines look.
    pub format: LogFormat,
    /// What is logged: `info`, or directives as `info,signet_controller::dispatch=debug`.
    pub level: String,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".into() }
    }
}

impl LogSettings {
    pub(super) fn parse(raw: &Raw) -> Result<Self, SettingError> {
        let default = Self::default();
        let forms = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        let format = word("SIGNET_LOG_FORMAT", raw.log_format.as_deref(), &forms)?;
        if let Some(level) = &raw.log_level {
            level.parse::<Targets>().map_err(|e| wrong("SIGNET_LOG_LEVEL", e))?;
        }
        Ok(Self {
            format: format.unwrap_or(default.format),
            level: raw.log_level.clone().unwrap_or(default.level),
        })
    }
}
