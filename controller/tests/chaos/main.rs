//! Everything is killed at random moments while commands are in flight, and then the books are checked.
//!
//! Two rounds of 50 commands; with `SIGNET_SOAK=1` twenty of 500. Each round's plan is printed with its seed:
//! `SIGNET_CHAOS_ROUND=number:seed` runs that round alone again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "code for tests alone: what goes wrong fails the test, with its reason"
)]

mod books;
mod parts;
mod round;
mod special;
mod world;

use std::time::Duration;

use round::Plan;
use signet_controller::store::{Statement, Store};
use special::Kind;
use world::{End, HOSTS, World};

/// A database that is put back knows only the agents' starts of its time: each is asked to introduce itself again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn private_mariadb_rabbitmq_a_restored_database_finds_its_hosts_again() {
    let world = World::start(1).await;
    let mut rng = fastrand::Rng::new();
    let dump = world.services.dump().await;
    world.agents.lock().await.iter_mut().for_each(|agent| {
        agent.kill();
        agent.start();
    });
    for host in HOSTS {
        let asked = world.ask(&mut rng, &format!("before-{host}"), host).await.expect("accepted");
        assert!(matches!(world.end_of(&asked).await, End::Final(_)), "{host} came back");
    }
    special::restore_database(&world, &dump, &[]).await;
    // What the dump itself says of who is there counts for half a minute; here it is old.
    let db = Store::open(world.services.mysql_url()).unwrap();
    let mut tx = db.begin().await.unwrap();
    tx.run(Statement::same("UPDATE heartbeats SET received_at = 0").query()).await.unwrap();
    tx.commit().await.unwrap();
    world.all_online(Duration::from_secs(60)).await;
    special::check_work(&world, &mut rng).await;
}

/// `private` in its name: it has services of its own, which it kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn private_mariadb_rabbitmq_nothing_is_lost_or_started_twice() {
    let soak = std::env::var_os("SIGNET_SOAK").is_some();
    let (rounds, commands) = if soak { (20, 500) } else { (2, 50) };
    let again = std::env::var("SIGNET_CHAOS_ROUND").ok();
    let again = again.map(|text| {
        let (number, seed) = text.split_once(':').expect("SIGNET_CHAOS_ROUND is number:seed");
        (number.parse::<u64>().unwrap(), seed.parse::<u64>().unwrap())
    });
    for number in again.map_or(0..rounds, |(number, _)| number..number + 1) {
        let kind = match (soak, number) {
            (false, 1) | (true, 1..=5) => Kind::WipedBroker,
            (true, 6..=8) => Kind::RestoredDatabase,
            (true, 9..=11) => Kind::PutBackAgent,
            _ => Kind::Kills,
        };
        let seed = again.map_or_else(|| fastrand::u64(..), |(_, seed)| seed);
        let plan = Plan { seed, commands, controllers: 1 + (number as usize % 2), kind };
        println!("chaos round {number}: {plan:?}");
        round::run(&plan).await;
    }
}
