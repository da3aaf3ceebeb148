//! What is promised at each point.

use std::ops::RangeInclusive;

use serde_json::{Value, json};
use signet_common::fault::{JobPoint, Point};
use signet_testkit::Pair;

use super::world::{EXIT_CODE, Fault, Host, World};

/// What is going on when the program dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scene {
    /// One command that ends at once.
    Free,
    /// One command that ends when it was seen running, so that its result is in the second report.
    Gated,
    /// Another command holds the agent's only slot, so that this one is accepted and waits.
    Queued,
}

/// How the command must end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It ran once, and its exit code came back.
    Ran,
    /// `started` was journaled and no result: it was never run again, and had come to its first line so often.
    Interrupted(RangeInclusive<usize>),
}

impl End {
    /// Checks a command's result, and how often it was started.
    pub fn check(&self, mark: &str, result: &Value, starts: usize) {
        let (state, exit_code, allowed) = match self {
            Self::Ran => ("failed", EXIT_CODE, 1..=1),
            Self::Interrupted(starts) => ("interrupted", -1, starts.clone()),
        };
        assert_eq!((&result["state"], &result["exit_code"]), (&json!(state), &json!(exit_code)), "{result}");
        assert!(allowed.contains(&starts), "{mark} was started {starts} times");
        if *self == Self::Ran {
            assert_eq!(result["stdout"], format!("{mark}\n"), "its output came once");
        }
    }
}

fn case(point: Point) -> (Scene, End) {
    use Point as P;
    match point {
        P::ControllerBeforeCommit
        | P::ControllerAfterCommit
        | P::ControllerBeforePublish
        | P::ControllerAfterPublish
        | P::ControllerAfterConfirm
        | P::ControllerBeforeIntake
        | P::ControllerBeforeIntakeCommit
        | P::ControllerAfterIntakeCommit
        | P::ControllerAfterIntakeAck
        | P::AgentAfterResult => (Scene::Free, End::Ran),
        P::AgentBeforeAck | P::AgentAfterAck => (Scene::Queued, End::Ran),
        P::AgentBeforeReport | P::AgentAfterReport => (Scene::Gated, End::Ran),
        // With a free slot `accepted` and `started` share a sync, and what is written outlives a killed process.
        P::AgentBeforeSync | P::AgentAfterSync | P::AgentBeforeSpawn => {
            (Scene::Free, End::Interrupted(0..=0))
        }
        P::AgentAfterSpawn => (Scene::Free, End::Interrupted(0..=1)),
        P::AgentBeforeResult => (Scene::Free, End::Interrupted(1..=1)),
    }
}

async fn dies_at(point: Point) {
    let (scene, end) = case(point);
    play(point, scene, end, |_| {}).await;
}

/// Plays a scene until the program dies at the point, starts it again `meanwhile` something has happened, and checks
/// how everything ended.
async fn play(point: Point, scene: Scene, end: End, meanwhile: impl FnOnce(&Host)) {
    let parts = Pair::MariadbRabbitmq.parts().await;
    let nth = if scene == Scene::Free { 1 } else { 2 };
    let fault = Fault { point, nth, stop: false };
    let mut world = World::start(parts.database_url(), parts.amqp_url().unwrap(), fault).await;
    let (client, host) = (world.client.clone(), world.host.clone());

    let mut asked = Vec::new();
    if scene == Scene::Queued {
        let first = client.ask("first", &host.gated("first")).await;
        client.running(&first).await;
        asked.push((first, "first", End::Interrupted(1..=1)));
    }
    let ask = async {
        if scene != Scene::Gated {
            return client.ask("command", &host.marking("command")).await;
        }
        let task = client.ask("command", &host.gated("command")).await;
        client.running(&task).await;
        host.open_gate();
        task
    };
    let restart = async {
        world.dies(point).await;
        meanwhile(&host);
        world.program(point).start(None);
    };
    let (task, ()) = tokio::join!(ask, restart);
    asked.push((task, "command", end));
    // Asked for last, it is also taken last: behind a message that comes again.
    asked.push((client.ask("last", &host.marking("last")).await, "last", End::Ran));

    for (task, mark, end) in &asked {
        let result = client.result(task).await;
        end.check(mark, &result, host.starts(mark));
    }
    assert_eq!(client.tasks().await, asked.len());
}

#[test]
fn every_point_is_documented() {
    let document = include_str!("../../../docs/architecture.md");
    let jobs = JobPoint::ALL.iter().map(|point| point.name());
    for name in Point::ALL.iter().map(|point| point.name()).chain(jobs) {
        assert!(document.contains(&format!("`{name}`")), "{name}");
    }
}

macro_rules! tests {
    ($($name:ident = $point:ident,)+) => {
        mod mariadb_rabbitmq {
            use super::*;

            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                dies_at(Point::$point).await;
            })+

            /// The message was not acknowledged, so it comes again, and nothing of it was ever started.
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn agent_before_sync_and_the_power_fails() {
                play(Point::AgentBeforeSync, Scene::Free, End::Ran, Host::tear_journal).await;
            }
        }

        #[test]
        fn every_point_has_its_test() {
            assert_eq!(Point::ALL, [$(Point::$point),+]);
        }
    };
}

tests! {
    controller_before_commit = ControllerBeforeCommit,
    controller_after_commit = ControllerAfterCommit,
    controller_before_publish = ControllerBeforePublish,
    controller_after_publish = ControllerAfterPublish,
    controller_after_confirm = ControllerAfterConfirm,
    agent_before_sync = AgentBeforeSync,
    agent_after_sync = AgentAfterSync,
    agent_before_ack = AgentBeforeAck,
    agent_after_ack = AgentAfterAck,
    agent_before_spawn = AgentBeforeSpawn,
    agent_after_spawn = AgentAfterSpawn,
    agent_before_result = AgentBeforeResult,
    agent_after_result = AgentAfterResult,
    agent_before_report = AgentBeforeReport,
    agent_after_report = AgentAfterReport,
    controller_before_intake = ControllerBeforeIntake,
    controller_before_intake_commit = ControllerBeforeIntakeCommit,
    controller_after_intake_commit = ControllerAfterIntakeCommit,
    controller_after_intake_ack = ControllerAfterIntakeAck,
}
