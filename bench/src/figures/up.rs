//! `signet up`: from the start to the ready line, at the first start and with existing keys, and its memory when idle.

use std::path::Path;
use std::time::Duration;

use super::Options;
use crate::limits::SETTLE;
use crate::process::{Running, command, program};
use crate::stats::Runs;
use crate::table::{Row, Target};

pub(super) async fn measure(options: &Options) -> anyhow::Result<Vec<Row>> {
    let (mut first, mut again, mut memory) = (Runs::new(), Runs::new(), Runs::new());
    for _ in 0..options.runs {
        let directory = tempfile::tempdir()?;
        let (up, took) = start(directory.path())?;
        first.push(took.as_secs_f64());
        up.stop()?;
        let (up, took) = start(directory.path())?;
        again.push(took.as_secs_f64());
        tokio::time::sleep(SETTLE).await;
        memory.push(up.memory()?);
        up.stop()?;
    }
    let row = |figure: &str, unit, ours, most| Row {
        figure: format!("`signet up`, {figure}"),
        unit,
        ours,
        other: None,
        target: Target::AtMost(most),
    };
    Ok(vec![
        row("RSS when idle", "MiB", memory, 60.0),
        row("start to ready, existing keys", "s", again, 1.0),
        row("start to ready, first start", "s", first, 3.0),
    ])
}

fn start(directory: &Path) -> anyhow::Result<(Running, Duration)> {
    let mut up = command(program("signet")?);
    up.args(["up", "--listen", "127.0.0.1:0", "--hostname", "bench", "--data-dir"])
        .arg(directory.join("signet"));
    let (up, _, took) = Running::start_until(up, &directory.join("log"), "signet: ready on ")?;
    Ok((up, took))
}
