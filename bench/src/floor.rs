//! Runs the floor programs of `bench/floor`.

use anyhow::{Context as _, ensure};
use serde::de::DeserializeOwned;

use crate::process::{command, program};
use crate::stage::Ground;

/// Runs one of them on this ground and gives what it measured.
pub(crate) async fn run<T: DeserializeOwned + Send + 'static>(
    ground: &Ground,
    arguments: &[&str],
) -> anyhow::Result<T> {
    let mut command = command(program("signet-floor")?);
    command
        .args(arguments)
        .env("FLOOR_MYSQL_URL", ground.database.url())
        .env("FLOOR_AMQP_URL", ground.vhost.url())
        .env("FLOOR_DIR", ground.path());
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    ensure!(output.status.success(), "signet-floor: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("what signet-floor printed")
}
