//! The sign of life: every 10 s, and at once when the agent starts or stops taking work.

use std::sync::Arc;

use nix::sys::statvfs::statvfs;
use signet_common::bus::{Address, Health, Published};
use signet_common::ids::Jti;
use signet_common::limits::HEARTBEAT_SECONDS;
use signet_common::messages::{BusyReason, FEATURES, Heartbeat};
use signet_common::time::Micros;
use signet_common::{Envelope, PayloadType};
use sysinfo::System;
use tokio::sync::watch;
use tokio::time::{Duration, Instant};

use crate::agent::{Agent, Gate};
use crate::limits::BUSY_EVERY;
use crate::{memory, pulse};

/// The kernel's id of this boot.
pub(crate) fn boot_id() -> String {
    let read = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    read.map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// The host's figures.
#[derive(Debug)]
pub(crate) struct Vitals {
    /// Absent where the kernel shows no figures; then they are 0.
    system: Option<System>,
}

impl Vitals {
    pub(crate) fn new() -> Self {
        let mut system = System::new()
            .inspect_err(|error| tracing::warn!(%error, "this host's figures can't be read"))
            .ok();
        if let Some(system) = &mut system {
            // CPU is measured from one look to the next.
            system.refresh_cpu_usage();
        }
        Self { system }
    }

    fn cpu(&mut self) -> f64 {
        let Some(system) = &mut self.system else { return 0.0 };
        system.refresh_cpu_usage();
        percent(f64::from(system.global_cpu_usage()))
    }

    fn memory(&mut self) -> f64 {
        let Some(system) = &mut self.system else { return 0.0 };
        system.refresh_memory();
        share(system.used_memory(), system.total_memory())
    }
}

#[expect(clippy::cast_precision_loss, reason = "a percentage with one decimal")]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { percent(part as f64 * 100.0 / whole as f64) }
}

/// 0 to 100, one decimal, never NaN.
fn percent(value: f64) -> f64 {
    if value.is_finite() { (value.clamp(0.0, 100.0) * 10.0).round() / 10.0 } else { 0.0 }
}

/// Use of the data directory's disk; 0 when it can't be asked.
fn disk(agent: &Agent) -> f64 {
    statvfs(agent.data.path()).map_or(0.0, |disk| {
        let used = disk.blocks().saturating_sub(disk.blocks_free());
        share(used, used + disk.blocks_available())
    })
}

/// What the agent says of itself now.
pub(crate) fn heartbeat(agent: &Agent, vitals: &mut Vitals, stopping: bool) -> Heartbeat {
    // The number before the head, as a report takes its own after its events: whoever hears of a heartbeat that is newer
    // than a report finds a head that has all of its events.
    let n = agent.number();
    let head = agent.journal.head().borrow().clone();
    let busy = agent.busy();
    let load = System::load_average().map_or([0.0; 3], |load| [load.one, load.five, load.fifteen]);
    let (waiting, running, refused, keyring) = {
        let desk = agent.desk();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let keyring = desk.keyring.as_ref().map_or(0, signet_common::keyring::Keyring::version);
        (count(desk.work.waiting()), count(desk.work.running()), desk.refused.by_label(), keyring)
    };
    Heartbeat {
        iss: agent.id.to_string(),
        aud: vec!["controller".to_owned()],
        iat: Micros::now().seconds(),
        jti: Jti::generate(),
        start_id: agent.start_id.clone(),
        n,
        log_id: head.log_id,
        head: head.seq,
        chain: head.chain,
        hostname: agent.hostname.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        features: FEATURES.iter().map(|&f| f.to_owned()).collect(),
        keyring,
        stopping,
        busy,
        narrowed: agent.policy.is_narrowed(),
        isolation: agent.runner.isolation(),
        waiting,
        running,
        cpu_usage: vitals.cpu(),
        memory_usage: vitals.memory(),
        load,
        disk_usage: disk(agent),
        uptime: System::uptime().unwrap_or_default(),
        boot_id: agent.boot_id.clone(),
        refused,
        deploys: agent.standings.borrow().clone(),
    }
}

/// Sends one heartbeat, if there is a way. It is not tried again: the next one says more. One at a time, and none after
/// the last.
pub(crate) async fn send(agent: &Agent, stopping: bool) {
    let mut vitals = agent.vitals.lock().await;
    if !stopping && agent.farewell.is_cancelled() {
        return;
    }
    let Some(bus) = agent.link.borrow().clone() else { return };
    let made = Envelope::sign(&agent.key, PayloadType::Heartbeat, &heartbeat(agent, &mut vitals, stopping));
    match made {
        Ok(envelope) => match bus.publish(&Address::Heartbeats, envelope).await {
            Ok(published) => {
                tracing::trace!(?published, "heartbeat");
                if published == Published::Confirmed && !stopping && agent.desk().gate != Gate::SetAside {
                    pulse::status(pulse::ONLINE);
                }
            }
            Err(error) => tracing::debug!(%error, "a heartbeat could not be sent"),
        },
        Err(error) => tracing::error!(%error, "a heartbeat can't be signed"),
    }
}

/// Gives memory back when there is no work: until the next heartbeat little happens.
fn rest(agent: &Agent) {
    let at_work = {
        let desk = agent.desk();
        desk.work.running() + desk.work.waiting() > 0
    };
    if agent.alone
        && !at_work
        && let Err(error) = memory::give_back()
    {
        tracing::debug!(%error, "memory can't be given back");
    }
}

/// Sends heartbeats until the agent stops.
pub(crate) async fn run(agent: Arc<Agent>) {
    let every = Duration::from_secs(HEARTBEAT_SECONDS.into());
    let mut link = agent.link.subscribe();
    let mut head = agent.journal.head();
    let mut told: Option<BusyReason> = None;
    let mut due = Instant::now();
    let mut health: Option<watch::Receiver<Health>> = None;
    loop {
        if link.has_changed().unwrap_or(false) || health.is_none() {
            health = link.borrow_and_update().as_ref().map(|bus| bus.health());
        }
        let up = health.as_mut().is_some_and(|health| *health.borrow_and_update() == Health::Up);
        if up && (Instant::now() >= due || agent.busy() != told) {
            told = agent.busy();
            send(&agent, false).await;
            rest(&agent);
            due = Instant::now() + every;
        }
        let wake = tokio::time::sleep_until(if up { due } else { Instant::now() + every });
        tokio::select! {
            () = wake => {}
            // The journal turns whenever work comes or goes; so often is looked whether the agent is (still) busy.
            () = async { tokio::time::sleep(BUSY_EVERY).await; head.changed().await.ok(); }, if up => {}
            // Away or back: whoever was taken for offline says at once that it is there.
            () = changed(&mut health), if health.is_some() => {
                if up {
                    pulse::status("no connection to the broker");
                }
                due = Instant::now();
            }
            () = agent.beat.notified() => due = Instant::now(),
            _ = link.changed() => {
                health = link.borrow_and_update().as_ref().map(|bus| bus.health());
                due = Instant::now();
            }
            () = agent.farewell.cancelled() => return,
            () = agent.stop.cancelled() => return,
        }
    }
}

/// Waits for a change of the connection. A bus that is gone changes no more; then the link does.
async fn changed(health: &mut Option<watch::Receiver<Health>>) {
    if let Some(health) = health
        && health.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{at_rest, entry};
    use crate::journal::Purpose;
    use signet_common::messages::Event;

    /// Whoever hears of a heartbeat that is newer than a report must find a head that has all of its events.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_newer_number_never_has_an_older_head() {
        let root = tempfile::tempdir().unwrap();
        let key = signet_common::SigningKey::generate().unwrap();
        let agent = at_rest(root.path(), signet_common::keyring::Keyring::first(&key, 1).unwrap().0);
        let reporting = Arc::clone(&agent);
        let reporter = tokio::spawn(async move {
            let mut told = Vec::new();
            for _ in 0..300 {
                let event = Event::Started { jti: Jti::generate(), at: 1 };
                reporting.append(vec![entry(event)], Purpose::Progress).await.unwrap();
                let seq = reporting.journal.head().borrow().seq;
                told.push((reporting.number(), seq));
            }
            told
        });
        let mut heard = Vec::new();
        let mut vitals = Vitals::new();
        while !reporter.is_finished() {
            let said = heartbeat(&agent, &mut vitals, false);
            heard.push((said.n, said.head));
            tokio::task::yield_now().await;
        }
        let told = reporter.await.unwrap();
        for (n, head) in heard {
            let older = told.iter().filter(|(m, _)| *m < n).map(|(_, seq)| *seq).max().unwrap_or_default();
            assert!(head >= older, "heartbeat {n} has head {head}, and {older} was reported before");
        }
    }

    #[test]
    fn figures_are_percentages_with_one_decimal() {
        assert_eq!(percent(f64::NAN), 0.0);
        assert_eq!(percent(101.0), 100.0);
        assert_eq!(percent(12.345), 12.3);
        assert_eq!((share(1, 3), share(1, 0)), (33.3, 0.0));
        let mut vitals = Vitals::new();
        let (cpu, memory) = (vitals.cpu(), vitals.memory());
        assert!((0.0..=100.0).contains(&cpu));
        assert!(memory > 0.0 && memory <= 100.0);
        assert_eq!(boot_id().len(), 36);
    }
}
