//! The agent's program.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use signet_agent::config::{Action, CommandLine, Flags, PolicyAction, read_public_key};
use signet_agent::identity::{DataDir, read_key};
use signet_agent::policy::{Policy, Question};
use signet_agent::session::BusSource;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn main() -> anyhow::Result<()> {
    signet_agent::launch::main_if_launcher();
    signet_agent::deploy::main_if_driver();
    let CommandLine { action, flags } = CommandLine::read();
    let flags = flags.with_file()?;
    start_log(&flags)?;
    match action {
        None => serve(&flags),
        Some(Action::ShowKey) => show_key(&flags),
        Some(Action::Trust { file }) => {
            let key = read_public_key(&file)?;
            DataDir::open(&flags.data_dir())?.trust(&key)?;
            println!("{} is believed from the next start on", key.id());
            Ok(())
        }
        Some(Action::Policy { action }) => policy(&flags, action),
        Some(Action::Join) => signet_agent::join::join(&flags),
        Some(Action::Leave { untold }) => signet_agent::leave::leave(&flags, untold),
        Some(Action::Reset { new_key: _ }) => {
            let dir = DataDir::open(&flags.data_dir())?;
            dir.reset()?;
            println!("{}", dir.key()?.public().id());
            Ok(())
        }
    }
}

/// To standard error: systemd's journal adds the time, and a terminal shows it as it is.
fn start_log(flags: &Flags) -> anyhow::Result<()> {
    // lapin writes whole messages into its log.
    let filter = format!("{},lapin=off", flags.log.as_deref().unwrap_or("info"));
    let filter = tracing_subscriber::EnvFilter::try_new(&filter).context("the log filter")?;
    let color = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(color).init();
    Ok(())
}

fn show_key(flags: &Flags) -> anyhow::Result<()> {
    let key = match read_key(&flags.data_dir())? {
        Some(key) => key,
        None => DataDir::open(&flags.data_dir())?.key()?,
    };
    println!("{}", key.public().to_pem());
    Ok(())
}

/// The agent's own account is taken to be the one who asks.
fn policy(flags: &Flags, action: PolicyAction) -> anyhow::Result<()> {
    let policy = Policy::default().find(flags.policy.as_deref(), &flags.data_dir())?;
    let own_user = signet_agent::own_user();
    let (answer, json) = match action {
        PolicyAction::Check { command, user, argv, json } => {
            (policy.check(Question { command, argv, user }, &own_user), json)
        }
        PolicyAction::CheckDeploy { deployment, json } => (policy.check_deploy(deployment, &own_user), json),
    };
    if json || !std::io::stdout().is_terminal() {
        println!("{}", serde_json::to_string(&answer)?);
    } else {
        println!("{answer}");
    }
    if !answer.allowed {
        std::process::exit(1);
    }
    Ok(())
}

fn serve(flags: &Flags) -> anyhow::Result<()> {
    let config = flags.config()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            stop.cancel();
        });
        let source = BusSource::FromWelcome(config.broker_tls.clone());
        signet_agent::run(config, source, shutdown).await
    });
    // A hello that nobody answers holds nothing up.
    runtime.shutdown_background();
    served
}
