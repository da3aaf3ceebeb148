//! The same classes through a true broker to an agent at work.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use futures_util::stream::{self, StreamExt as _};
use serde_json::json;
use signet_common::bus::{Address, Published};
use signet_common::envelope::{Envelope, PayloadType};
use signet_common::messages::Outcome;
use signet_common::{AgentId, Jti, SigningKey};
use signet_testkit::{Pair, eventually};

use crate::classes::{ALTERED, Forger, SIGNED, altered};
use crate::controller::{Controller, PATIENCE, command, now};
use crate::support::{Agent, config};

/// Of each class.
const EACH: usize = 1_000;
/// Publishes in flight; the agent's queue holds 1,000.
const IN_FLIGHT: usize = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_rabbitmq_a_thousand_of_each_class_do_nothing_to_an_agent_at_work() {
    let parts = Pair::MariadbRabbitmq.parts().await;
    let controller = Controller::start_on(parts.controller_bus().await).await;
    let dir = tempfile::tempdir().unwrap();
    let bus = parts.agent_bus().await;
    let agent = Agent::start_on(&controller, config(&controller, dir.path()), bus).await;

    let (release, seen) = (dir.path().join("release"), dir.path().join("seen"));
    let text = format!(
        "until [ -e {} ]; do sleep 0.1; done; echo once >> {}; exit 7",
        release.display(),
        seen.display()
    );
    let running = controller.command(&agent.id, json!({ "command": text, "timeout": 600 })).await;
    controller.started(&running).await;

    let forger = Forger {
        fleet: controller.state().signing.clone(),
        stranger: SigningKey::generate().unwrap(),
        to: agent.id.clone(),
        now: now(),
    };
    let bases = accepted(&controller, &agent.id).await;
    let seed = fastrand::u64(..);
    println!("{EACH} of {} classes, seed {seed}", ALTERED.len() + SIGNED.len());
    let mut rng = Rng::with_seed(seed);
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    let mut messages = Vec::new();
    for _ in 0..EACH {
        let kept = ALTERED.iter().map(|(_, alter)| altered(*alter, &bases, &mut rng)).collect::<Vec<_>>();
        for (envelope, refusal) in
            kept.into_iter().chain(SIGNED.iter().map(|(_, sign)| sign(&forger, &mut rng)))
        {
            *expected.entry(refusal.label().to_owned()).or_insert(0) += 1;
            messages.push(envelope);
        }
    }
    send(&controller, &agent.id, messages).await;

    let refused = |h: &signet_common::messages::Heartbeat| h.refused.values().sum::<u64>();
    let total = expected.values().sum::<u64>();
    let heartbeat = controller.heartbeat(|h| refused(h) >= total).await;
    assert_eq!(heartbeat.refused, expected, "each is counted by its reason");
    assert_eq!(heartbeat.running, 1, "the good command still runs");

    std::fs::write(release, "").unwrap();
    let result = controller.result(&running).await;
    assert_eq!((result.outcome, result.exit_code), (Outcome::Failed, Some(7)));
    assert_eq!(std::fs::read_to_string(seen).unwrap(), "once\n");
    let started = controller.state().events.iter().filter(|e| is_start(e)).count();
    assert_eq!(started, 1 + bases.len(), "nothing but the good ones was started");
    agent.stop().await;
}

fn is_start(event: &signet_common::messages::Event) -> bool {
    matches!(event, signet_common::messages::Event::Started { .. })
}

/// Messages that this agent has taken and run.
async fn accepted(controller: &Controller, to: &AgentId) -> Vec<Envelope> {
    let (ids, messages): (Vec<Jti>, Vec<Envelope>) = (0..64)
        .map(|_| {
            let (jti, payload) = command(to, json!({}));
            (jti, controller.sign(PayloadType::Command, &payload))
        })
        .unzip();
    send(controller, to, messages.clone()).await;
    for jti in &ids {
        assert_eq!(controller.result(jti).await.outcome, Outcome::Succeeded);
    }
    messages
}

/// Publishes each until the broker has it; a full queue refuses, until the agent has taken some.
async fn send(controller: &Controller, to: &AgentId, messages: Vec<Envelope>) {
    stream::iter(messages)
        .for_each_concurrent(IN_FLIGHT, async |message| {
            eventually(PATIENCE + Duration::from_secs(60), "room in the queue", async || {
                let published = controller.bus.publish(&Address::Agent(to.clone()), message.clone()).await;
                (published.unwrap() == Published::Confirmed).then_some(())
            })
            .await;
        })
        .await;
}
