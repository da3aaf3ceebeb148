//! `signet-controller`: reads the settings, starts the controller, stops it on a signal.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use signet_controller::settings::sources::{Flags, misspelt};
use signet_controller::{Running, logging, start};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let flags = Flags::parse();
    let only_check = flags.check_config;
    let settings = match flags.settings() {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("signet-controller: {error}");
            return ExitCode::from(2);
        }
    };
    if only_check {
        println!("{settings:#?}");
        return ExitCode::SUCCESS;
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("signet-controller: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(async {
        logging::init(&settings.log)?;
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        for name in misspelt(names) {
            tracing::warn!(name, "this variable looks like a setting and is none");
        }
        run(start(settings).await?).await
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("signet-controller: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(mut running: Running) -> anyhow::Result<()> {
    tokio::spawn(feed_watchdog());
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut signalled = std::pin::pin!(async {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    });
    let ready = tokio::select! {
        () = &mut signalled => None,
        ready = running.ready() => Some(ready),
    };
    match ready {
        None => {}
        Some(Err(_)) => return running.finished().await,
        Some(Ok(())) => {
            announce(&running)?;
            tokio::select! {
                () = signalled => {}
                ended = running.finished() => return ended,
            }
        }
    }
    tracing::info!("stopping");
    sd_notify::notify(&[sd_notify::NotifyState::Stopping])?;
    running.stop().await
}

fn announce(running: &Running) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    out.write_all(running.announcement().as_bytes())?;
    out.flush()?;
    sd_notify::notify(&[sd_notify::NotifyState::Ready])?;
    Ok(())
}

/// Tells systemd's watchdog, if there is one, that the runtime turns. A loop that ends takes the program with it anyway,
/// and a database or broker that is away is no reason to start again.
async fn feed_watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut beat = tokio::time::interval(limit / 3);
    loop {
        beat.tick().await;
        if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]) {
            tracing::warn!(%error, "systemd's watchdog could not be fed");
        }
    }
}
