//! `signet-agent join`: from a join token to a host that is online.

use std::thread;
use std::time::Instant;

use anyhow::{Context as _, anyhow, bail};
use signet_common::ids::StartId;
use signet_common::messages::Standing;

use crate::config::{AgentConfig, Flags};
use crate::heartbeat::boot_id;
use crate::hello::{Draft, HelloError, Trust, Welcomed, Who};
use crate::http::{Controller, HttpError};
use crate::identity::{DataDir, Enrolment};
use crate::journal::{Journal, Opened};
use crate::limits::{JOIN_LOOK, JOIN_ONLINE_MAX, JOIN_REACH_MAX, RETRY_FIRST, RETRY_MAX};
use crate::pulse::ONLINE;
use crate::retry::Backoff;
use crate::unit::Unit;

/// Enrols this host with the join token, which is kept nowhere: later starts need only the data directory. Then starts the
/// service, where systemd is there and the data directory is the service's, and waits until the host is online.
///
/// # Errors
/// When settings are missing or contradict the settings file, the controller can't be reached or refuses, or the service
/// does not start. When the host is not online in time, with what it waits for.
pub fn join(flags: &Flags) -> anyhow::Result<()> {
    let config = flags.config()?;
    agrees_with_file(flags, &config)?;
    let unit = Unit::of(&config.data_dir);
    let was_active = match &unit {
        Some(unit) => unit.stop()?,
        None => false,
    };
    let enrolled = enrol(&config);
    if let (Err(_), true, Some(unit)) = (&enrolled, was_active, &unit) {
        unit.start()?;
    }
    let Welcomed { welcome, .. } = enrolled?;
    match welcome.standing {
        Standing::Accepted => println!("{} has joined", config.hostname),
        Standing::Pending | Standing::SetAside => {
            println!("{}", welcome.reason.as_deref().unwrap_or("an admin has to accept this host"));
        }
    }
    let Some(unit) = unit else {
        println!("no service was started: run signet-agent --data-dir {}", config.data_dir.display());
        return Ok(());
    };
    unit.start()?;
    wait_online(&unit)?;
    println!("{} is online", config.hostname);
    Ok(())
}

/// The service reads the settings file before what was noted, so that another word there would win at its start.
fn agrees_with_file(flags: &Flags, config: &AgentConfig) -> anyhow::Result<()> {
    let file = Flags { config: flags.config.clone(), ..Flags::default() }.with_file()?;
    if file.controller.is_some_and(|named| named != config.controller) {
        bail!("the settings file names another controller; change it, or remove its line `controller`");
    }
    if file.hostname.is_some_and(|named| !named.eq_ignore_ascii_case(config.hostname.as_str())) {
        bail!("the settings file names another hostname; change it, or remove its line `hostname`");
    }
    Ok(())
}

/// Says the first hello, and notes what later starts need.
fn enrol(config: &AgentConfig) -> anyhow::Result<Welcomed> {
    let controller = Controller::parse(&config.controller)?;
    let trust = Trust { controller, join: config.join.clone(), fingerprint: config.fingerprint.clone() };
    let data = DataDir::open(&config.data_dir)?;
    let held = data.keyring()?;
    trust.check(held.as_ref()).map_err(|why| anyhow!(why))?;
    data.enrol(&Enrolment {
        controller: Some(config.controller.clone()),
        hostname: Some(config.hostname.clone()),
        group: config.group.clone(),
        fingerprint: config.fingerprint.clone(),
    })?;
    let key = data.key()?;
    println!("this host's key: {}", key.public().id());
    // The service says hello of the same journal, and only its answer begins that.
    let Opened { journal, ended, .. } = Journal::open(data.path(), &boot_id())?;
    let head = journal.head().borrow().clone();
    drop(journal);
    ended.blocking_recv().context("the journal")??;
    let who = Who {
        key: &key,
        hostname: &config.hostname,
        group: config.group.as_deref(),
        start_id: &StartId::generate(),
    };
    let welcomed = say(Draft::new(&who, &data, head, held)?, &trust)?;
    if let Some(signed) = &welcomed.signed {
        data.keep_keyring(signed)?;
    }
    Ok(welcomed)
}

/// Says hello until somebody answers.
fn say(mut draft: Draft, trust: &Trust) -> anyhow::Result<Welcomed> {
    let until = Instant::now() + JOIN_REACH_MAX;
    let mut pause = Backoff::new(RETRY_FIRST, RETRY_MAX);
    loop {
        match draft.say(trust) {
            Ok(welcomed) => return Ok(welcomed),
            Err(HelloError::Http(HttpError::Unreachable(why))) if Instant::now() < until => {
                tracing::warn!(why, "the controller can't be reached yet");
                thread::sleep(pause.next().min(until.saturating_duration_since(Instant::now())));
            }
            Err(error) => return Err(error).context("this host has not joined"),
        }
    }
}

/// Waits for the service to say that it is online.
fn wait_online(unit: &Unit) -> anyhow::Result<()> {
    let until = Instant::now() + JOIN_ONLINE_MAX;
    let mut told = String::new();
    loop {
        let status = unit.status().context("systemctl")?;
        if status == ONLINE {
            return Ok(());
        }
        if status != told {
            println!("{status}");
            told = status;
        }
        if Instant::now() >= until {
            let last = if told.is_empty() { "it says nothing" } else { &told };
            bail!("not online yet: {last}; it goes on trying (systemctl status signet-agent)");
        }
        thread::sleep(JOIN_LOOK);
    }
}
