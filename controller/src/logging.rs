//! Log lines on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::settings::{LogFormat, LogSettings};

/// Begins to log; once per process.
///
/// # Errors
/// When the level makes no sense, or somebody logs already.
pub fn init(settings: &LogSettings) -> anyhow::Result<()> {
    // lapin writes whole messages to the log, and with them command texts and what stands in `env` and `stdin`.
    let targets = settings.level.parse::<Targets>()?.with_target("lapin", LevelFilter::OFF);
    let registry = tracing_subscriber::registry().with(targets);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match settings.format {
        LogFormat::Json => registry.with(lines.json()).try_init()?,
        LogFormat::Text => registry.with(lines.with_ansi(std::io::stderr().is_terminal())).try_init()?,
    }
    Ok(())
}
