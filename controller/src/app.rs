//! What every request and every loop can reach.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signet_common::bus::Bus;
use tokio_util::sync::CancellationToken;

use crate::accounts::Accounts;
use crate::approvals::Approvals;
use crate::audit::Audit;
use crate::commands::Commands;
use crate::deploy::Jobs;
use crate::dispatch::Dispatch;
use crate::error::Error;
use crate::hosts::{BrokerUsers, Hosts};
use crate::http::rates::Rates;
use crate::keys::Keys;
use crate::limits::RETRY_AFTER_SECONDS;
use crate::live::Live;
use crate::repositories::Repositories;
use crate::settings::Settings;
use crate::store::Store;

/// The controller's parts. Cheap to clone.
#[derive(Clone)]
pub struct App {
    /// What it was told.
    pub settings: Arc<Settings>,
    /// The database.
    pub store: Store,
    /// The bus.
    pub bus: Arc<dyn Bus>,
    /// Who did what.
    pub audit: Audit,
    /// Who is known.
    pub accounts: Accounts,
    /// The installation's keys.
    pub keys: Keys,
    /// Servers, agents and their heartbeats.
    pub hosts: Hosts,
    /// The agents' own users at the broker; `None` when they share one.
    pub broker_users: Option<BrokerUsers>,
    /// Messages and deliveries.
    pub dispatch: Dispatch,
    /// Who must agree before something runs.
    pub approvals: Approvals,
    /// Tasks and results.
    pub commands: Commands,
    /// What is known of git repositories.
    pub repositories: Repositories,
    /// Git deployments.
    pub jobs: Jobs,
    /// Bells for who watches.
    pub live: Live,
    /// How much who may ask.
    pub rates: Arc<Rates>,
    /// Whether the database is there with its newest schema, and the keys are loaded.
    pub ready: Ready,
    /// Cancelled when the controller stops; long answers end with it.
    pub stop: CancellationToken,
}

/// Set once, when the database and the keys are there.
#[derive(Debug, Clone, Default)]
pub struct Ready(Arc<AtomicBool>);

impl Ready {
    /// From now on requests are answered.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it is so.
    ///
    /// # Errors
    /// [`Error::Unavailable`] until it is.
    pub fn check(&self) -> Result<(), Error> {
        if self.0.load(Ordering::Acquire) {
            return Ok(());
        }
        let message = "the controller is starting: its database is not there yet".into();
        Err(Error::Unavailable { message, retry_after: RETRY_AFTER_SECONDS })
    }
}
