//! The floors: what a design with signed messages over a broker and a database cannot do without, done by one program,
//! one step after another, and nothing else. Prints JSON.
//!
//! Needs `FLOOR_MYSQL_URL`, `FLOOR_AMQP_URL` (an empty database and vhost) and `FLOOR_DIR` (a directory on disk).

mod fan_out;
mod parts;
mod post;
mod rates;

use clap::Parser;

#[derive(Parser)]
#[command(name = "signet-floor", version, about)]
enum Floor {
    /// One command's way there and back, one after another; prints the milliseconds of each
    Post {
        /// How many are timed
        #[arg(long)]
        samples: usize,
    },
    /// How fast each part of a command goes by itself; prints rates a second
    Rates {
        /// How long each is done, in seconds
        #[arg(long)]
        seconds: f64,
    },
    /// One command to many hosts; prints the milliseconds of each part
    FanOut {
        /// How many hosts
        #[arg(long)]
        hosts: usize,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let printed = match Floor::parse() {
        Floor::Post { samples } => serde_json::to_string(&post::run(samples).await?)?,
        Floor::Rates { seconds } => serde_json::to_string(&rates::run(seconds).await?)?,
        Floor::FanOut { hosts } => serde_json::to_string(&fan_out::run(hosts).await?)?,
    };
    println!("{printed}");
    Ok(())
}
