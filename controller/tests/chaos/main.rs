//! Everything is killed at random moments while commands are in flight, and then the books are checked.
//!
//! Two rounds of 50 commands; with `SIGNET_SOAK=1` twenty of 500. The seed is printed; `SIGNET_CHAOS_SEED` repeats it.
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

use round::{Kind, Plan};

/// `private` in its name: it has services of its own, which it kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn private_mariadb_rabbitmq_nothing_is_lost_or_started_twice() {
    let soak = std::env::var_os("SIGNET_SOAK").is_some();
    let given = std::env::var("SIGNET_CHAOS_SEED").ok().and_then(|s| s.parse::<u64>().ok());
    let first = given.unwrap_or_else(|| fastrand::u64(..));
    let (rounds, commands) = if soak { (20, 500) } else { (2, 50) };
    for number in 0..rounds {
        let kind = match (soak, number) {
            (false, 1) => Kind::WipedBroker,
            (true, 1..=5) => Kind::WipedBroker,
            (true, 6..=8) => Kind::RestoredDatabase,
            (true, 9..=11) => Kind::PutBackAgent,
            _ => Kind::Kills,
        };
        let plan =
            Plan { seed: first.wrapping_add(number), commands, controllers: 1 + (number as usize % 2), kind };
        println!("chaos round {number}: {plan:?}");
        round::run(&plan).await;
    }
}
