//! One round: commands are asked for while parts die, then everything comes back and the books are checked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::books::{self, Allowed, Asked};
use super::special::{self, Kind};
use super::world::{End, HOSTS, World};

/// So many posts are in flight at a time.
const POSTS_AT_ONCE: usize = 8;

#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub commands: usize,
    pub controllers: usize,
    pub kind: Kind,
}

/// Kills one part, and starts it again a moment later.
async fn strike(world: &World, rng: &mut Rng) {
    let pause = Duration::from_millis(rng.u64(200..1500));
    let what = rng.u8(0..6);
    match what {
        0 | 1 => {
            let which = rng.usize(0..HOSTS.len());
            let mut agents = world.agents.lock().await;
            println!("  kill {}", agents[which].name);
            agents[which].check();
            agents[which].kill();
            tokio::time::sleep(pause).await;
            agents[which].start();
        }
        2 | 3 => {
            let mut controllers = world.controllers.lock().await;
            let which = rng.usize(0..controllers.len());
            println!("  kill {}", controllers[which].name);
            controllers[which].check();
            controllers[which].kill();
            tokio::time::sleep(pause).await;
            controllers[which].start();
        }
        4 => {
            println!("  kill the broker");
            world.services.kill_rabbit().await;
            tokio::time::sleep(pause).await;
            world.services.start_rabbit().await;
        }
        _ => {
            println!("  kill the database");
            world.services.kill_mysql().await;
            tokio::time::sleep(pause).await;
            world.services.start_mysql().await;
        }
    }
}

/// Strikes again and again, while it is running.
struct Chaos {
    over: CancellationToken,
    striking: tokio::task::JoinHandle<()>,
}

impl Chaos {
    fn start(world: &Arc<World>, mut rng: Rng) -> Self {
        let over = CancellationToken::new();
        let (world, stop) = (world.clone(), over.clone());
        let striking = tokio::spawn(async move {
            while !stop.is_cancelled() {
                strike(&world, &mut rng).await;
                let calm = Duration::from_millis(rng.u64(500..3000));
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(calm) => {}
                }
            }
        });
        Self { over, striking }
    }

    /// Everything that was killed is started again when this returns.
    async fn stop(self) {
        self.over.cancel();
        self.striking.await.unwrap();
    }
}

/// Asks for a range of commands, some at a time; gives those that were accepted.
async fn ask_for(world: &Arc<World>, rng: &mut Rng, numbers: std::ops::Range<usize>) -> Vec<Asked> {
    let permits = Arc::new(tokio::sync::Semaphore::new(POSTS_AT_ONCE));
    let mut asking = JoinSet::new();
    for number in numbers {
        let (world, permits, mut rng) = (world.clone(), permits.clone(), rng.fork());
        asking.spawn(async move {
            let _permit = permits.acquire_owned().await.unwrap();
            tokio::time::sleep(Duration::from_millis(rng.u64(0..400))).await;
            let host = HOSTS[rng.usize(0..HOSTS.len())];
            world.ask(&mut rng, &format!("m{number}"), host).await
        });
    }
    asking.join_all().await.into_iter().flatten().collect()
}

/// Runs one round and checks its books.
pub async fn run(plan: &Plan) {
    let world = Arc::new(World::start(plan.controllers).await);
    let mut rng = Rng::with_seed(plan.seed);
    let dump = if plan.kind == Kind::RestoredDatabase { Some(world.services.dump().await) } else { None };

    let half = plan.commands / 2;
    let mut chaos = Chaos::start(&world, rng.fork());
    let mut asked = ask_for(&world, &mut rng, 0..half).await;
    let allowed = match plan.kind {
        Kind::Kills => Allowed::default(),
        Kind::WipedBroker => {
            chaos.stop().await;
            special::wipe_broker(&world).await;
            chaos = Chaos::start(&world, rng.fork());
            Allowed::default()
        }
        Kind::RestoredDatabase => {
            chaos.stop().await;
            let dump = dump.expect("taken before the round");
            let allowed = special::restore_database(&world, &dump, &asked).await;
            chaos = Chaos::start(&world, rng.fork());
            allowed
        }
        Kind::PutBackAgent => special::put_back_agent(&world, &mut rng).await,
    };
    asked.extend(ask_for(&world, &mut rng, half..plan.commands).await);
    chaos.stop().await;
    world.check().await;
    let (accepted, wanted) = (asked.len(), plan.commands);
    assert!(accepted * 100 >= wanted * 99, "only {accepted} of {wanted} were accepted");

    if let Some(back) = &allowed.put_back {
        special::accept_put_back(&world, &mut rng, back).await;
    }
    special::check_work(&world, &mut rng).await;
    settle(&world, plan, &asked, &allowed).await;
    if plan.kind == Kind::RestoredDatabase {
        special::check_orphans(&world, &allowed).await;
    }
}

/// Waits until every task is over, and checks each.
async fn settle(world: &World, plan: &Plan, asked: &[Asked], allowed: &Allowed) {
    let mut wrong = Vec::new();
    let mut details = Vec::new();
    for one in asked {
        match world.end_of(one).await {
            End::Final(detail) => details.push((one, detail)),
            End::Unknown if allowed.unknown.contains(&one.mark) => {}
            End::Unknown => wrong.push(format!("{} is unknown", one.mark)),
        }
    }
    let marks = books::marks(world.root.path(), &HOSTS);
    wrong.extend(books::check_starts(&marks, allowed));
    let mut states = BTreeMap::new();
    for (one, detail) in &details {
        for target in detail["targets"].as_array().into_iter().flatten() {
            *states.entry(target["state"].to_string()).or_insert(0) += 1;
        }
        wrong.extend(books::check(one, detail, &marks, allowed));
    }
    println!("  {} accepted, ends: {states:?}", asked.len());
    if !wrong.is_empty() {
        panic!("seed {}:\n{}", plan.seed, wrong.join("\n"));
    }
}
