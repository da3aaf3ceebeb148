//! Disks without room.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use signet_agent::AgentConfig;
use signet_agent::journal::Entry;
use signet_agent::limits::RESERVE_BYTES;
use signet_common::PayloadType;
use signet_common::ids::Jti;
use signet_common::messages::{BusyReason, Event, Outcome};
use signet_testkit::on_a_disk_of;

use crate::controller::{Controller, command};
use crate::logs::leave;
use crate::support::{Agent, config};

/// Room for the reserve and for a little journal.
const DISK_BYTES: u64 = RESERVE_BYTES + 4 * 1024 * 1024;

/// Runs a test whose agent has a disk of its own.
fn on_a_small_disk<T: Future<Output = ()>>(test: impl FnOnce(tempfile::TempDir) -> T + Send) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    on_a_disk_of(DISK_BYTES, &path, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test(dir));
    });
}

fn fill(dir: &Path) {
    let full = fs::write(dir.join("filler"), vec![b'x'; usize::try_from(2 * DISK_BYTES).unwrap()]);
    assert_eq!(full.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
}

#[test]
fn a_full_disk_takes_no_work_and_no_output_but_the_true_exit_code() {
    on_a_small_disk(async |dir| {
        let (controller, gate) = (Controller::start().await, tempfile::tempdir().unwrap());
        let agent = Agent::start(&controller, config(&controller, dir.path())).await;
        let go = gate.path().join("go");
        let text =
            format!("until [ -e {} ]; do sleep 0.05; done; yes | head -c 3000000; exit 7", go.display());
        let runs = controller.command(&agent.id, json!({ "command": text })).await;
        controller.started(&runs).await;
        fill(dir.path());
        let refused = controller.command(&agent.id, json!({ "stdin": "x".repeat(100_000) })).await;
        controller.heartbeat(|h| h.busy == Some(BusyReason::DiskFull)).await;
        let reserve = || fs::metadata(dir.path().join("reserve")).unwrap().len();
        assert_eq!(reserve(), RESERVE_BYTES, "work gets nothing of it");
        fs::write(go, "").unwrap();
        let result = controller.result(&runs).await;
        assert_eq!((result.outcome, result.exit_code), (Outcome::Failed, Some(7)));
        assert_eq!(result.stdout_summary.bytes, 3_000_000);
        assert!(result.stdout_summary.omitted_from.is_some(), "output gets nothing of the reserve");
        assert!(!controller.state().find("accepted", &refused));
        agent.stop().await;
    });
}

#[test]
fn an_agent_that_finds_its_disk_full_at_the_start_says_so_and_stops() {
    on_a_small_disk(async |dir| {
        let controller = Controller::start().await;
        let agent = Agent::start(&controller, config(&controller, dir.path())).await;
        let id = agent.id.clone();
        controller.heartbeat(|h| h.keyring == 1).await;
        agent.stop().await;
        // So many that their ends take more than the last page of a file has room for.
        let mut entries = Vec::new();
        let mut all: Vec<Jti> = Vec::new();
        for _ in 0..30 {
            let (jti, payload) = command(&id, json!({}));
            let message = Some(controller.sign(PayloadType::Command, &payload));
            let exp = payload["exp"].as_i64().unwrap();
            entries.push(Entry { event: Event::Accepted { jti: jti.clone(), at: 1 }, exp, message });
            entries.push(Entry { event: Event::Started { jti: jti.clone(), at: 1 }, exp: 0, message: None });
            all.push(jti);
        }
        leave(dir.path(), entries).await;
        fs::remove_file(dir.path().join("reserve")).unwrap();
        fill(dir.path());

        let hasty = AgentConfig { stop_grace: Duration::from_millis(200), ..config(&controller, dir.path()) };
        let agent = Agent::begin(&controller, hasty).await;
        controller.heartbeat(|h| h.busy == Some(BusyReason::DiskFull)).await;
        agent.stop().await;
        assert!(!controller.state().find("result", &all[0]));

        fs::remove_file(dir.path().join("filler")).unwrap();
        let agent = Agent::start(&controller, config(&controller, dir.path())).await;
        for jti in &all {
            assert_eq!(controller.result(jti).await.outcome, Outcome::Interrupted);
        }
        agent.stop().await;
    });
}
