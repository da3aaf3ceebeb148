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

use round::Plan;
use special::Kind;

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
