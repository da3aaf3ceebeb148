//! The controller as a library: started with settings, stopped with a call. Programs and tests use it alike.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use signet_common::bus::Bus;
use signet_common::bus::amqp::{AmqpBus, AmqpOptions, Retry, Role};
use signet_common::bus::memory::MemoryBus;
use signet_common::bus::topology::Topology;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::accounts::{Accounts, FIRST_PASSWORD_FILE};
use crate::app::{App, Ready};
use crate::approvals::Approvals;
use crate::audit::Audit;
use crate::commands::{CommandOutcomes, Commands};
use crate::deploy::{DeployOutcomes, Jobs};
use crate::dispatch::{Dispatch, Kind, Outcomes};
use crate::hosts::{BrokerUsers, Hosts, tidy_broker_users};
use crate::http::metrics;
use crate::http::rates::Rates;
use crate::http::server::Listeners;
use crate::keys::{Keys, LoadError, MasterKey, create_or_read};
use crate::live::Live;
use crate::loops::Loops;
use crate::repositories::Repositories;
use crate::retention;
use crate::settings::{BusSettings, Secret, Settings};
use crate::store::{Store, StoreError};

/// A controller at work. Dropping it stops it without waiting.
pub struct Running {
    /// Where it listens.
    pub addrs: Vec<SocketAddr>,
    /// Its parts.
    pub app: App,
    ready: watch::Receiver<bool>,
    work: JoinHandle<anyhow::Result<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.app.stop.cancel();
    }
}

/// Starts a controller on the bus that its settings name.
///
/// # Errors
/// When a setting makes no sense, an address is taken, or the data directory can't be used. A database or broker that
/// is away is no error.
pub async fn start(settings: Settings) -> anyhow::Result<Running> {
    let bus: Arc<dyn Bus> = match &settings.bus {
        BusSettings::InProcess => Arc::new(MemoryBus::new(Topology::default())),
        BusSettings::Amqp { url, .. } => {
            let retry = Retry { spread: Duration::from_secs(1), ..Retry::default() };
            let options = AmqpOptions::new(url.reveal(), "signet-controller", Role::Controller);
            let tls = settings.broker_tls.clone();
            Arc::new(AmqpBus::start(AmqpOptions { retry, tls, ..options })?)
        }
    };
    start_on(settings, bus).await
}

/// Starts a controller on a bus that the caller shares with it.
///
/// # Errors
/// As [`start`].
pub async fn start_on(mut settings: Settings, bus: Arc<dyn Bus>) -> anyhow::Result<Running> {
    metrics::install();
    make_data_dir(&settings)?;
    let keys = Keys::new(MasterKey::load_or_create(&settings.master_key_file)?);
    let admin_token = match settings.admin_token.take() {
        Some(token) => token,
        None => left_admin_token(&settings)?,
    };
    if settings.join_token.is_some() {
        tracing::warn!(
            "SIGNET_JOIN_TOKEN lets anyone who knows it enrol hosts for ever: for development only"
        );
    }
    let broker_users = broker_users(&settings)?;
    warn_of_plain(&settings);
    let store = Store::open(settings.database_url.reveal())?;
    let listeners = Listeners::bind(&settings.listen, settings.tls.as_ref()).await?;
    let addrs = listeners.addresses()?;
    let hosts = Hosts::new(store.clone());
    let live = Live::new(bus.clone());
    let dispatch = Dispatch::new(store.clone(), bus.clone(), keys.clone(), hosts.clone(), live.clone());
    let command_outcomes: Arc<dyn Outcomes> = Arc::new(CommandOutcomes);
    let deploy_outcomes: Arc<dyn Outcomes> = Arc::new(DeployOutcomes);
    dispatch.register([(Kind::Command, command_outcomes), (Kind::Deploy, deploy_outcomes)].into());
    let accounts = Accounts::new(store.clone(), &admin_token);
    let approvals =
        Approvals::new(store.clone(), accounts.clone(), hosts.clone(), dispatch.clone(), keys.clone());
    let repositories = Repositories::new(store.clone(), keys.clone());
    let app = App {
        audit: Audit::new(store.clone()),
        commands: Commands::new(store.clone(), hosts.clone(), dispatch.clone(), approvals.clone()),
        jobs: Jobs::new(
            store.clone(),
            keys.clone(),
            (hosts.clone(), dispatch.clone(), approvals.clone(), repositories.clone()),
            &settings,
        ),
        accounts,
        approvals,
        repositories,
        rates: Arc::new(Rates::new(settings.rates)),
        settings: Arc::new(Settings { admin_token: Some(admin_token), ..settings }),
        store,
        bus,
        keys,
        hosts,
        broker_users,
        dispatch,
        live,
        ready: Ready::default(),
        stop: CancellationToken::new(),
    };
    let (told, ready) = watch::channel(false);
    let work = tokio::spawn(work(app.clone(), listeners, told));
    Ok(Running { addrs, app, ready, work })
}

impl Running {
    /// Waits until the database is there, its schema is the newest, and the keys are loaded.
    ///
    /// # Errors
    /// When the controller ended before that; [`Running::finished`] says why.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        self.ready
            .wait_for(|ready| *ready)
            .await
            .map(drop)
            .context("the controller ended before it was ready")
    }

    /// What a program prints when it is ready: a line for each address, then, once, a generated password of the first
    /// admin. To be written in one piece: who waits for the first line may close the pipe after it.
    #[must_use]
    pub fn announcement(&self) -> String {
        let scheme = if self.app.settings.tls.is_some() { "https" } else { "http" };
        let addresses = self.addrs.iter().map(|address| format!("signet: ready on {scheme}://{address}\n"));
        let password = self.first_password_line().map(|line| line + "\n");
        addresses.chain(password).collect()
    }

    /// What a program prints once about a generated password of the first admin.
    #[must_use]
    pub fn first_password_line(&self) -> Option<String> {
        let password = self.app.accounts.take_first_password()?;
        let path = self.app.settings.data_dir.join(FIRST_PASSWORD_FILE);
        let (password, path) = (password.reveal(), path.display());
        Some(format!("signet: the first admin is \"admin\", password {password} (also in {path})"))
    }

    /// Waits until the controller ends, which by itself it does only when something is wrong beyond repair.
    ///
    /// # Errors
    /// What is wrong.
    pub async fn finished(&mut self) -> anyhow::Result<()> {
        (&mut self.work).await.context("the controller panicked")?
    }

    /// Stops it: no new requests, a bounded wait for those under way, then the loops.
    ///
    /// # Errors
    /// When it ended with an error.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.app.stop.cancel();
        self.finished().await
    }
}

/// Plain HTTP beyond this machine was wished for, by name or by a program that embeds the controller.
fn warn_of_plain(settings: &Settings) {
    let beyond = settings.listen.iter().find(|address| !address.ip().is_loopback());
    if let (Some(address), None) = (beyond, &settings.tls) {
        tracing::warn!(%address, "plain HTTP: tokens and commands can be read on the way; set SIGNET_TLS_CERT");
    }
}

/// The management API that the settings name, if they do.
fn broker_users(settings: &Settings) -> anyhow::Result<Option<BrokerUsers>> {
    let BusSettings::Amqp { url, agent_url, management_url } = &settings.bus else { return Ok(None) };
    if let Some(management) = management_url {
        return BrokerUsers::new(management, agent_url.as_ref().unwrap_or(url), &settings.broker_tls)
            .map(Some);
    }
    if agent_url.is_none() {
        tracing::warn!(
            "SIGNET_AMQP_MANAGEMENT_URL and SIGNET_AGENT_AMQP_URL are unset: agents are told the controller's own user at \
             the broker, and each of them may read and delete every queue"
        );
    }
    Ok(None)
}

/// Everything that runs until the controller stops. The first part that fails ends all.
async fn work(app: App, listeners: Listeners, told: watch::Sender<bool>) -> anyhow::Result<()> {
    let ended = tokio::try_join!(listeners.serve(app.clone()), loops(&app, told));
    // A failed part stops its siblings' requests too.
    app.stop.cancel();
    app.store.close().await;
    ended.map(drop)
}

async fn loops(app: &App, told: watch::Sender<bool>) -> anyhow::Result<()> {
    if !prepare(app).await? {
        return Ok(());
    }
    app.ready.set();
    told.send_replace(true);
    let mut work = Loops::new(app.stop.clone());
    app.dispatch.run(&mut work);
    app.live.run(&mut work);
    app.audit.run(app.keys.clone(), &mut work);
    app.jobs.run(&mut work);
    work.spawn("the look for old broker users", tidy_broker_users(app.clone()));
    let retention = app.settings.retention.clone();
    work.spawn("the retention", retention::run(app.clone(), retention));
    work.finished().await
}

/// Brings the schema up to date and loads the keys, for as long as the database needs to come; `false` when the
/// controller was stopped first.
async fn prepare(app: &App) -> anyhow::Result<bool> {
    loop {
        match app.store.migrate_when_there(&app.stop).await {
            Err(_) if app.stop.is_cancelled() => return Ok(false),
            done => done.context("the database's schema")?,
        }
        match app.keys.load(&app.store, &app.settings.data_dir).await {
            Ok(()) => match first_accounts(app).await {
                Ok(()) => return Ok(true),
                Err(error) if !passing(&error) => return Err(error),
                Err(why) => {
                    tracing::warn!(%why, "the database went away while accounts were prepared; trying again")
                }
            },
            Err(LoadError::Store(why @ (StoreError::Unavailable(_) | StoreError::Conflict(_)))) => {
                tracing::warn!(%why, "the database went away while the keys were read; trying again");
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = app.stop.cancelled() => return Ok(false),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}

async fn first_accounts(app: &App) -> anyhow::Result<()> {
    let settings = &app.settings;
    app.accounts.prepare(&app.keys, &settings.data_dir, settings.admin_password.as_ref()).await
}

/// Whether it is the database's word that it is away.
fn passing(error: &anyhow::Error) -> bool {
    let stores = error.chain().filter_map(|cause| cause.downcast_ref::<StoreError>());
    stores.into_iter().any(|e| matches!(e, StoreError::Unavailable(_) | StoreError::Conflict(_)))
}

fn make_data_dir(settings: &Settings) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&settings.data_dir);
    made.with_context(|| format!("data directory {}", settings.data_dir.display()))
}

/// The admin token that lies in the data directory for the command line to find; made when absent.
fn left_admin_token(settings: &Settings) -> anyhow::Result<Secret> {
    let path = settings.data_dir.join("admin.token");
    let fresh = || {
        let mut bytes = [0; 32];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| std::io::Error::other("no randomness"))?;
        Ok(hex::encode(bytes))
    };
    let token = create_or_read(&path, fresh).with_context(|| format!("admin token {}", path.display()))?;
    anyhow::ensure!(!token.is_empty(), "admin token {}: the file is empty", path.display());
    Ok(Secret::new(token))
}
