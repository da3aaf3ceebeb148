//! A message is in the journal, and the broker dies before it is acknowledged.

use std::path::PathBuf;
use std::time::Duration;

use signet_common::bus::amqp::{AmqpBus, AmqpOptions, Retry, Role};
use signet_common::bus::{Bus as _, Queue};
use signet_common::fault::Point;
use signet_testkit::{PrivateServices, eventually};

use super::points::End;
use super::world::{Fault, World};

const PATIENCE: Duration = Duration::from_secs(60);
const REPORTS: &[u8] = b"signet.reports";

/// How many messages of the agent's queue nobody has taken.
async fn untaken(bus: &AmqpBus, queue: &Queue) -> Option<u64> {
    bus.depth(queue).await.ok()?
}

/// Whether everything that the agent took is acknowledged. Takes a second, or many on a busy machine.
async fn acknowledged(services: &PrivateServices, queue: &Queue) -> bool {
    let queues = ["-q", "list_queues", "-p", "signet", "name", "messages_unacknowledged"];
    let line = format!("{}\t0", queue.name());
    services.rabbitmqctl(&queues).await.lines().any(|queue| queue == line)
}

/// Whether the reports queue outlives a SIGKILL: RabbitMQ 3.10 lists its quorum queues in a file that it writes a second
/// late, and one that was not in it comes back without a leader. That is another test's matter.
fn reports_last(services: &PrivateServices) -> bool {
    let data = services.directory().join("rabbit/data");
    let below =
        |path: PathBuf| std::fs::read_dir(path).into_iter().flatten().map(|entry| entry.unwrap().path());
    let nodes = below(data).flat_map(|node| below(node.join("quorum")));
    let mut lists = nodes.filter_map(|node| std::fs::read(node.join("names.dets")).ok());
    lists.any(|list| list.windows(REPORTS.len()).any(|name| name == REPORTS))
}

/// The message comes again and is known by then; what was accepted must run all the same, and once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn private_mariadb_rabbitmq_dies_before_the_ack() {
    let services = PrivateServices::start().await;
    let fault = Fault { point: Point::AgentBeforeAck, nth: 2, stop: true };
    let world = World::start(services.mysql_url(), services.amqp_url(), fault).await;
    let (client, host) = (&world.client, &world.host);
    let agent = client.get("/api/agents").await.unwrap()[0]["agent_id"].as_str().unwrap().to_owned();
    let queue = Queue::Agent(agent.parse().unwrap());
    let first = client.ask("first", &host.gated("first")).await;
    client.running(&first).await;
    let second = client.ask("second", &host.marking("second")).await;
    eventually(PATIENCE, "the agent to stand still", async || world.agent.stands_still().then_some(())).await;
    eventually(PATIENCE, "the reports queue to last", async || reports_last(&services).then_some(())).await;

    services.kill_rabbit().await;
    services.start_rabbit().await;
    let options = AmqpOptions::new(services.amqp_url(), "test", Role::Controller);
    let bus = AmqpBus::start(AmqpOptions { retry: Retry::quick(), ..options }).unwrap();
    let again = "the message to be sent again";
    eventually(PATIENCE, again, async || untaken(&bus, &queue).await.filter(|n| *n > 0)).await;
    world.agent.go_on();
    let taken = "it to be taken again";
    eventually(PATIENCE, taken, async || untaken(&bus, &queue).await.filter(|n| *n == 0)).await;
    let done = "it to be acknowledged";
    eventually(PATIENCE, done, async || acknowledged(&services, &queue).await.then_some(())).await;
    assert_eq!(host.starts("second"), 0);

    host.open_gate();
    for (task, mark) in [(first, "first"), (second, "second")] {
        End::Ran.check(mark, &client.result(&task).await, host.starts(mark));
    }
    assert_eq!(client.tasks().await, 2);
}
