//! A message is in the journal, and the broker dies before it is acknowledged.

use std::time::Duration;

use signet_common::fault::Point;
use signet_testkit::{PrivateServices, eventually};

use super::points::End;
use super::world::{Fault, World};

const PATIENCE: Duration = Duration::from_secs(60);

/// How many messages are in the agent's queue.
async fn waiting(services: &PrivateServices) -> Option<u64> {
    let queues = services.rabbitmqctl(&["-q", "list_queues", "-p", "signet", "name", "messages"]).await;
    let mut queues = queues.lines().filter_map(|line| line.split_once('\t'));
    queues.find(|(name, _)| name.starts_with("signet.agent."))?.1.parse().ok()
}

/// The message comes again and is known by then; what was accepted must run all the same, and once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn private_mariadb_rabbitmq_dies_before_the_ack() {
    let services = PrivateServices::start().await;
    let fault = Fault { point: Point::AgentBeforeAck, nth: 2, stop: true };
    let world = World::start(services.mysql_url(), services.amqp_url(), fault).await;
    let (client, host) = (&world.client, &world.host);
    let first = client.ask("first", &host.gated("first")).await;
    client.running(&first).await;
    let second = client.ask("second", &host.marking("second")).await;
    eventually(PATIENCE, "the agent to stand still", async || world.agent.stands_still().then_some(())).await;

    services.kill_rabbit().await;
    services.start_rabbit().await;
    let again = "the message to be sent again";
    eventually(PATIENCE, again, async || waiting(&services).await.filter(|n| *n > 0)).await;
    world.agent.go_on();
    let taken = "it to be taken again";
    eventually(PATIENCE, taken, async || waiting(&services).await.filter(|n| *n == 0)).await;
    assert_eq!(host.starts("second"), 0);

    host.open_gate();
    for (task, mark) in [(first, "first"), (second, "second")] {
        End::Ran.check(mark, &client.result(&task).await, host.starts(mark));
    }
    assert_eq!(client.tasks().await, 2);
}
