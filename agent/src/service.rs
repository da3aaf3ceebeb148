//! The agent as a whole: how it starts, and how it stops.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use nix::unistd::{User, geteuid};
use sd_notify::NotifyState;
use signet_common::time::Micros;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::agent::{Agent, Gate, Parts};
use crate::config::AgentConfig;
use crate::heartbeat;
use crate::hello::Trust;
use crate::http::{Controller, provide_cryptography};
use crate::identity::{DataDir, Enrolment, read_key};
use crate::journal::{Journal, Opened};
use crate::limits::{FIRST_WORD, FORGET_EVERY, RETENTION_EVERY, STOP_END, STOP_REPORT, WAITING_EVERY};
use crate::pulse::{self, Pulse};
use crate::run::{End, Runner, RunnerConfig};
use crate::session::{self, BusSource};
use crate::verify::Time;
use crate::work::Work;
use crate::{consume, drift, execute, recover, report};

/// Runs an agent until `shutdown`, then lets what runs end within a minute. Works on a current-thread runtime.
///
/// # Errors
/// When it can't start: bad settings, a data directory that is in use or unreadable. Later only when the journal's
/// disk fails or a loop ends that never should.
pub async fn run(config: AgentConfig, bus: BusSource, shutdown: CancellationToken) -> anyhow::Result<()> {
    provide_cryptography();
    let controller = Controller::parse(&config.controller)?;
    let boot_id = heartbeat::boot_id();
    let (join, fingerprint) = (config.join.clone(), config.fingerprint.clone());
    let begun = begin(&config, &boot_id, Trust { controller, join, fingerprint }).await?;
    let Opened { journal, recovered, ended } = begun.opened;
    let mut time = Time::default();
    time.recall(recovered.time);
    let known: HashMap<u128, i64> = recovered.known;
    let agent = Agent::new(Parts {
        key: begun.key,
        hostname: config.hostname,
        group: config.group,
        boot_id,
        data: begun.data,
        journal,
        runner: begun.runner,
        policy: config.policy,
        own_user: own_user(),
        alone: config.alone,
        work: Work::new(config.slots, known),
        time,
        keyring: begun.keyring,
        is_new: begun.is_new,
    });
    tracing::info!(agent = %agent.id, hostname = %agent.hostname, version = env!("CARGO_PKG_VERSION"), "starting");
    let recovering = recover::recover(&agent, recovered.unfinished, &recovered.boot_id);
    recovering.await.context("what an earlier start left running can't be ended")?;

    let mut loops = start_loops(&agent, begun.trust, bus);
    pulse::notify(&[NotifyState::Ready]);
    let ended_early = tokio::select! {
        () = shutdown.cancelled() => None,
        ended = ended => Some(match ended {
            Ok(Err(error)) => anyhow!(error).context("the journal's disk failed"),
            _ => anyhow!("the journal ended"),
        }),
        Some(ended) = loops.join_next() => Some(anyhow!("a loop of the agent ended: {ended:?}")),
    };
    pulse::notify(&[NotifyState::Stopping]);
    if ended_early.is_none() {
        stop(&agent, config.stop_grace).await;
    }
    agent.stop.cancel();
    while let Some(ended) = loops.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a loop failed while it stopped");
        }
    }
    agent.tasks.close();
    // What could not be written in time is found in the journal at the next start.
    if timeout(STOP_REPORT, agent.tasks.wait()).await.is_err() {
        tracing::warn!("some commands did not end in time");
    }
    ended_early.map_or(Ok(()), Err)
}

struct Begun {
    data: DataDir,
    key: signet_common::SigningKey,
    keyring: Option<signet_common::keyring::Keyring>,
    trust: Trust,
    runner: Runner,
    opened: Opened,
    is_new: bool,
}

/// Everything that reads or makes files. Off the loop: making a key takes a third of a second, reading a large journal
/// longer.
async fn begin(config: &AgentConfig, boot_id: &str, trust: Trust) -> anyhow::Result<Begun> {
    let (config, boot_id) = (config.clone(), boot_id.to_owned());
    let begin = move || -> anyhow::Result<Begun> {
        let data = DataDir::open(&config.data_dir)?;
        let keyring = data.keyring()?;
        // Before anything is noted: settings that can't work must not outlive this start.
        trust.check(keyring.as_ref()).map_err(|why| anyhow!(why))?;
        data.enrol(&Enrolment {
            controller: Some(config.controller),
            hostname: Some(config.hostname),
            group: config.group,
            fingerprint: config.fingerprint,
        })?;
        let had_key = read_key(data.path())?.is_some();
        let key = data.key()?;
        let runner = Runner::new(RunnerConfig {
            data_dir: config.data_dir,
            launcher: config.launcher,
            cgroup: config.cgroup,
        });
        let runner = runner.context("the data directory")?;
        crate::deploy::forget(data.path()).context("the data directory")?;
        let opened = Journal::open(data.path(), &boot_id)?;
        let is_new = !had_key && !data.has_old_log()?;
        Ok(Begun { data, key, keyring, trust, runner, opened, is_new })
    };
    tokio::task::spawn_blocking(begin).await?
}

/// The agent's own account, by name if it has one.
#[must_use]
pub fn own_user() -> String {
    let uid = geteuid();
    User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

fn start_loops(agent: &Arc<Agent>, trust: Trust, bus: BusSource) -> JoinSet<()> {
    let (consumer, reporter) = (Pulse::new(), Pulse::new());
    let mut loops = JoinSet::new();
    loops.spawn(consume::run(Arc::clone(agent), consumer.clone()));
    loops.spawn(report::run(Arc::clone(agent), reporter.clone()));
    loops.spawn(heartbeat::run(Arc::clone(agent)));
    loops.spawn(session::run(Arc::clone(agent), trust, bus));
    loops.spawn(drift::run(Arc::clone(agent)));
    loops.spawn(keep_house(Arc::clone(agent)));
    let pulses = vec![("consumer", consumer), ("reporter", reporter)];
    loops.spawn(pulse::watchdog(Arc::clone(agent), pulses));
    loops
}

/// What needs no message to happen: waiting commands expire, ids are forgotten, old events are removed.
async fn keep_house(agent: Arc<Agent>) {
    let mut waiting = tokio::time::interval(WAITING_EVERY);
    let mut forgetting = tokio::time::interval(FORGET_EVERY);
    let mut retention = tokio::time::interval(RETENTION_EVERY);
    let first_word = tokio::time::sleep(FIRST_WORD);
    tokio::pin!(first_word);
    let mut waited = false;
    loop {
        tokio::select! {
            _ = waiting.tick() => {
                if agent.desk().work.waiting() > 0 {
                    execute::pump(&agent);
                }
            }
            _ = forgetting.tick() => {
                let now = agent.time();
                agent.desk().work.forget(now);
            }
            _ = retention.tick() => {
                let (lasting, verified) = agent.lasting_time();
                agent.journal.retain(Micros::from_seconds(lasting), verified).await;
            }
            () = &mut first_word, if !waited => {
                waited = true;
                if agent.desk().gate == Gate::Starting {
                    tracing::info!("no word from the controller yet; what was accepted before starts now");
                    agent.desk().gate = Gate::Open;
                    execute::pump(&agent);
                }
            }
            () = agent.stop.cancelled() => return,
        }
    }
}

/// Starts nothing more, gives what runs its grace, then ends it, and says good-bye.
async fn stop(agent: &Arc<Agent>, grace: Duration) {
    tracing::info!("stopping");
    agent.desk().gate = Gate::Stopping;
    agent.beat.notify_one();
    // Each running command and each last word is a task. Last words alone wait only for room on the disk.
    agent.tasks.close();
    let grace = if agent.desk().work.running() > 0 { grace } else { grace.min(STOP_END) };
    if timeout(grace, agent.tasks.wait()).await.is_err() {
        for end in agent.desk().ends.values() {
            end.send_replace(Some(End::AgentStops));
        }
        if timeout(STOP_END, agent.tasks.wait()).await.is_err() {
            tracing::warn!("commands are still running; the next start ends them");
        }
    }
    let head = agent.journal.head().borrow().seq;
    let mut sent = agent.sent.subscribe();
    let connected = agent.link.borrow().is_some();
    let told = async {
        if connected && sent.wait_for(|sent| *sent >= head).await.is_err() {
            tracing::debug!("the reporter is gone");
        }
    };
    if timeout(STOP_REPORT, told).await.is_err() {
        tracing::info!("the last events are reported after the next start");
    }
    agent.farewell.cancel();
    if timeout(STOP_REPORT, heartbeat::send(agent, true)).await.is_err() {
        tracing::info!("the last heartbeat could not be sent");
    }
}
