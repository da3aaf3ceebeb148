//! One round: commands are asked for while parts die, then everything comes back and the books are checked.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use reqwest::Client;
use serde_json::{Value, json};
use signet_testkit::{PrivateServices, eventually};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::books::{self, Allowed, Asked};
use super::parts::{self, Program, TOKEN};

const HOSTS: [&str; 3] = ["alpha", "beta", "gamma"];
/// A post is repeated with its key for this long.
const POST_PATIENCE: Duration = Duration::from_secs(60);
/// `expires_in` + `timeout` + the deadline's grace, and time for agents that back off.
const SETTLE: Duration = Duration::from_secs(280);

/// What happens in a round beyond kills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Kills,
    WipedBroker,
    RestoredDatabase,
    PutBackAgent,
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub commands: usize,
    pub controllers: usize,
    pub kind: Kind,
}

struct World {
    services: PrivateServices,
    controllers: Mutex<Vec<Program>>,
    agents: Mutex<Vec<Program>>,
    urls: Vec<String>,
    root: tempfile::TempDir,
    client: Client,
}

impl World {
    async fn start(plan: &Plan) -> Self {
        let services = PrivateServices::start().await;
        let root = tempfile::tempdir().unwrap();
        let (mut controllers, mut urls) = (Vec::new(), Vec::new());
        for number in 0..plan.controllers {
            let (mut controller, url) = parts::controller(&services, root.path(), number);
            controller.start();
            controllers.push(controller);
            urls.push(url);
        }
        let client = Client::builder().timeout(Duration::from_secs(10)).build().unwrap();
        let mut agents = Vec::new();
        for (number, host) in HOSTS.iter().enumerate() {
            let mut agent = parts::agent(root.path(), host, &urls[number % urls.len()]);
            agent.start();
            agents.push(agent);
        }
        let world = Self {
            services,
            controllers: Mutex::new(controllers),
            agents: Mutex::new(agents),
            urls,
            root,
            client,
        };
        world.all_online().await;
        world
    }

    async fn get(&self, path: &str) -> Option<Value> {
        let answer =
            self.client.get(format!("{}{path}", self.urls[0])).bearer_auth(TOKEN).send().await.ok()?;
        if !answer.status().is_success() {
            return None;
        }
        answer.json().await.ok()
    }

    async fn all_online(&self) {
        eventually(Duration::from_secs(120), "all hosts to be online", async || {
            let servers = self.get("/api/servers?status=online").await?;
            (servers.as_array()?.len() == HOSTS.len()).then_some(())
        })
        .await;
    }

    /// Asks for one command, again and again with the same key; `None` when nobody took it in time.
    async fn ask(&self, rng: &mut Rng, number: usize) -> Option<Asked> {
        let mark = format!("m{number}");
        let exit_code = rng.i64(0..4);
        let pause = f64::from(rng.u32(0..20)) / 10.0;
        let host = HOSTS[rng.usize(0..HOSTS.len())];
        let root = self.root.path().display();
        let command = format!("echo {mark} >> {root}/{host}.marks; sleep {pause}; exit {exit_code}");
        let body = json!({
            "target_type": "node", "target": host, "command": command, "timeout": 10, "expires_in": 60,
        });
        let began = Instant::now();
        while began.elapsed() < POST_PATIENCE {
            let url = &self.urls[rng.usize(0..self.urls.len())];
            let request = self.client.post(format!("{url}/api/commands")).bearer_auth(TOKEN);
            let request = request.header("idempotency-key", format!("key-{number}")).json(&body);
            if let Ok(answer) = request.send().await
                && answer.status().as_u16() == 201
                && let Ok(task) = answer.json::<Value>().await
            {
                return Some(Asked { task_id: task["task_id"].as_str()?.to_owned(), mark, exit_code });
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        None
    }
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
            agents[which].kill();
            tokio::time::sleep(pause).await;
            agents[which].start();
        }
        2 | 3 => {
            let mut controllers = world.controllers.lock().await;
            let which = rng.usize(0..controllers.len());
            println!("  kill {}", controllers[which].name);
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

/// What the round's kind adds, in the middle of it; gives the hosts that are no longer held to the strict rules.
async fn special(world: &World, kind: Kind, dump: Option<signet_testkit::Dump>) -> Allowed {
    match kind {
        Kind::Kills => Allowed::default(),
        Kind::WipedBroker => {
            println!("  delete the broker's data directory");
            world.services.wipe_broker().await;
            Allowed::default()
        }
        Kind::RestoredDatabase => {
            println!("  restore the database");
            let mut controllers = world.controllers.lock().await;
            controllers.iter_mut().for_each(Program::kill);
            if let Some(dump) = dump {
                world.services.restore(&dump).await;
            }
            controllers.iter_mut().for_each(Program::start);
            Allowed::default()
        }
        Kind::PutBackAgent => {
            println!("  put back an agent's data directory");
            let data = world.root.path().join(HOSTS[0]);
            let copy = world.root.path().join("copy");
            let mut agents = world.agents.lock().await;
            agents[0].kill();
            copy_dir(&data, &copy);
            agents[0].start();
            drop(agents);
            tokio::time::sleep(Duration::from_secs(5)).await;
            let mut agents = world.agents.lock().await;
            agents[0].kill();
            std::fs::remove_dir_all(&data).unwrap();
            copy_dir(&copy, &data);
            agents[0].start();
            Allowed { aside: vec![HOSTS[0].into()] }
        }
    }
}

fn copy_dir(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

/// Runs one round and checks its books.
pub async fn run(plan: &Plan) {
    let world = Arc::new(World::start(plan).await);
    let mut rng = Rng::with_seed(plan.seed);
    let dump = if plan.kind == Kind::RestoredDatabase { Some(world.services.dump().await) } else { None };

    let over = CancellationToken::new();
    let chaos = tokio::spawn({
        let (world, over, mut rng) = (world.clone(), over.clone(), rng.fork());
        async move {
            while !over.is_cancelled() {
                strike(&world, &mut rng).await;
                let calm = Duration::from_millis(rng.u64(500..3000));
                tokio::select! {
                    () = over.cancelled() => {}
                    () = tokio::time::sleep(calm) => {}
                }
            }
        }
    });

    let mut asking = tokio::task::JoinSet::new();
    let permits = Arc::new(tokio::sync::Semaphore::new(8));
    let mut allowed = Allowed::default();
    let mut dump = dump;
    for number in 0..plan.commands {
        if number == plan.commands / 2 {
            allowed = special(&world, plan.kind, dump.take()).await;
        }
        let (world, permits, mut rng) = (world.clone(), permits.clone(), rng.fork());
        asking.spawn(async move {
            let _permit = permits.acquire_owned().await.unwrap();
            tokio::time::sleep(Duration::from_millis(rng.u64(0..400))).await;
            world.ask(&mut rng, number).await
        });
    }
    let asked: Vec<Asked> = asking.join_all().await.into_iter().flatten().collect();
    over.cancel();
    chaos.await.unwrap();
    assert!(
        asked.len() * 100 >= plan.commands * 99,
        "only {} of {} were accepted",
        asked.len(),
        plan.commands
    );
    settle(&world, plan, &asked, &allowed).await;
}

/// Waits until every task is over, and checks each.
async fn settle(world: &World, plan: &Plan, asked: &[Asked], allowed: &Allowed) {
    let mut details = Vec::new();
    for one in asked {
        let path = format!("/api/tasks/{}", one.task_id);
        let detail = eventually(SETTLE, &format!("{} to be over", one.mark), async || {
            let answer =
                world.client.get(format!("{}{path}", world.urls[0])).bearer_auth(TOKEN).send().await.ok()?;
            if answer.status().as_u16() == 404 && plan.kind == Kind::RestoredDatabase {
                return Some(None);
            }
            let detail: Value = answer.json().await.ok()?;
            let targets = detail["targets"].as_array()?;
            let open =
                |t: &Value| ["waiting", "sent", "accepted", "running"].iter().any(|s| t["state"] == *s);
            let held = |t: &Value| allowed.aside.iter().any(|h| t["hostname"] == h.as_str());
            (!targets.iter().any(|t| open(t) && !held(t))).then_some(Some(detail))
        })
        .await;
        details.push(detail);
    }
    let hosts: Vec<String> = HOSTS.iter().map(ToString::to_string).collect();
    let marks = books::marks(world.root.path(), &hosts);
    let mut wrong: Vec<String> = marks
        .iter()
        .filter(|((host, _), count)| **count > 1 && !allowed.aside.contains(host))
        .map(|((host, mark), count)| format!("{mark} was started {count} times on {host}"))
        .collect();
    let mut states = std::collections::BTreeMap::new();
    for (one, detail) in asked.iter().zip(&details) {
        let Some(detail) = detail else { continue };
        for target in detail["targets"].as_array().into_iter().flatten() {
            *states.entry(target["state"].to_string()).or_insert(0) += 1;
        }
        wrong.extend(books::check(one, detail, &marks, allowed));
    }
    println!("  {} accepted, ends: {states:?}", asked.len());
    if !wrong.is_empty() {
        let kept = std::env::temp_dir().join(format!("signet-chaos-{}", plan.seed));
        copy_dir(world.root.path(), &kept);
        panic!("seed {}: logs are in {}\n{}", plan.seed, kept.display(), wrong.join("\n"));
    }
}
