//! Prints what Signet takes, as a table: medians of several runs, beside what cannot be left out (the floors) and beside
//! a plain design (the peer), measured in the same rounds. `docs/benchmarks.md` says how. Run it with `scripts/bench`.

mod api;
mod figures;
mod fleet;
mod floor;
mod keys;
mod limits;
mod peer;
mod process;
mod stage;
mod stats;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum as _};

use crate::figures::{Figure, Options};
use crate::table::Line;

/// Prints what Signet takes, beside its floors and a plain design
///
/// Needs MariaDB and RabbitMQ as scripts/services starts them, and the programs of a release build beside this one.
#[derive(Debug, Parser)]
#[command(name = "signet-bench", version)]
struct Arguments {
    /// What to measure [default: everything]
    #[arg(value_enum)]
    figures: Vec<Figure>,
    /// Runs of each side, one of each in turn
    #[arg(long, default_value_t = 5, value_name = "NUMBER")]
    runs: usize,
    /// How long CPU is counted in each run, in seconds
    #[arg(long, default_value_t = 20, value_name = "SECONDS")]
    window: u64,
    /// Simulated agents [default: 1000 for fan-out, 5000 for heartbeats]
    #[arg(long, value_name = "NUMBER")]
    agents: Option<usize>,
    /// Write every figure of every run into this file, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("signet-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    anyhow::ensure!(arguments.runs > 0, "--runs must be at least 1");
    let options = Options {
        runs: arguments.runs,
        window: Duration::from_secs(arguments.window),
        agents: arguments.agents,
        cache: Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache"),
    };
    let wanted = match &arguments.figures[..] {
        [] => Figure::value_variants(),
        some => some,
    };
    let mut lines = Vec::new();
    println!("{}", table::HEAD);
    for figure in wanted {
        for line in figure.measure(&options).await? {
            println!("{line}");
            lines.push(line);
        }
    }
    if let Some(file) = &arguments.json {
        let all: Vec<_> = lines.iter().map(Line::json).collect();
        std::fs::write(file, serde_json::to_vec_pretty(&all)?)?;
    }
    let met = lines.iter().filter(|line| line.met()).count();
    println!("\n{met} of {} targets met", lines.len());
    Ok(())
}
