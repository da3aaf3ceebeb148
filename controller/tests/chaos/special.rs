//! What a round's kind adds in its middle, and what it then allows beyond the strict rules.

use std::path::Path;
use std::time::Duration;

use fastrand::Rng;
use serde_json::Value;
use signet_testkit::{Dump, eventually};

use super::books::{self, Allowed, Asked, PutBack};
use super::parts::Program;
use super::world::{End, HOSTS, SETTLE, World};

/// What happens in a round beyond kills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Kills,
    WipedBroker,
    RestoredDatabase,
    PutBackAgent,
}

/// Deletes the broker's data directory.
pub async fn wipe_broker(world: &World) {
    println!("  delete the broker's data directory");
    world.services.wipe_broker().await;
}

/// Puts the database back as it was before the round; what was asked for until now is unknown to it.
pub async fn restore_database(world: &World, dump: &Dump, so_far: &[Asked]) -> Allowed {
    println!("  restore the database");
    let mut controllers = world.controllers.lock().await;
    controllers.iter_mut().for_each(Program::kill);
    world.services.restore(dump).await;
    controllers.iter_mut().for_each(Program::start);
    Allowed { unknown: so_far.iter().map(|a| a.mark.clone()).collect(), ..Allowed::default() }
}

/// Puts one agent's data directory back from a copy, after the controller has taken in newer events of that agent.
pub async fn put_back_agent(world: &World, rng: &mut Rng) -> Allowed {
    println!("  put back an agent's data directory");
    let host = HOSTS[0];
    let (data, copy) = (world.root.path().join(host), world.root.path().join("copy"));
    let mut agents = world.agents.lock().await;
    agents[0].kill();
    copy_dir(&data, &copy);
    let marks = books::marks(world.root.path(), &[host]);
    agents[0].start();
    drop(agents);

    let newer = world.ask(rng, "newer-than-the-copy", host).await.expect("the probe is accepted");
    let End::Final(_) = world.end_of(&newer).await else { panic!("the probe is unknown") };

    let mut agents = world.agents.lock().await;
    agents[0].kill();
    std::fs::remove_dir_all(&data).unwrap();
    copy_dir(&copy, &data);
    agents[0].start();
    let held = marks.into_keys().map(|(_, mark)| mark).collect();
    Allowed { put_back: Some(PutBack { host: host.to_owned(), held }), ..Allowed::default() }
}

/// A host that was put back must have been set aside; an admin accepts it, and it works again.
pub async fn accept_put_back(world: &World, rng: &mut Rng, back: &PutBack) {
    let aside = format!("{} to be set aside", back.host);
    let agent_id = eventually(Duration::from_secs(120), &aside, async || {
        let server = world.get(&format!("/api/servers/{}", back.host)).await?;
        (server["hold"] == "set_aside").then(|| server["agent_id"].as_str().map(str::to_owned))?
    })
    .await;
    eventually(Duration::from_secs(60), "the host to be accepted", async || {
        world.post(&format!("/api/agents/{agent_id}/accept")).await
    })
    .await;
    // Until its new log has begun, what waits for it ends `rejected`: it was meant for the old one.
    eventually(Duration::from_secs(120), "a new log to begin", async || {
        let server = world.get(&format!("/api/servers/{}", back.host)).await?;
        (server["hold"] == "none").then_some(())
    })
    .await;
    let asked = world.ask(rng, "after-the-word", &back.host).await.expect("accepted again");
    let End::Final(detail) = world.end_of(&asked).await else { panic!("the task is unknown") };
    let target: &Value = &detail["targets"][0];
    assert_eq!(target["exit_code"], asked.exit_code, "the accepted host works again: {target}");
}

/// In the calm after all that, a command on each host truly runs.
pub async fn check_work(world: &World, rng: &mut Rng) {
    // An agent that lost its broker a moment ago may back off for a minute.
    world.all_online(Duration::from_secs(120)).await;
    for host in HOSTS {
        let asked =
            world.ask_within(rng, &format!("calm-{host}"), host, 180).await.expect("accepted in the calm");
        let End::Final(detail) = world.end_of(&asked).await else { panic!("{} is unknown", asked.mark) };
        let target: &Value = &detail["targets"][0];
        assert_eq!(target["exit_code"], asked.exit_code, "{host} works in the calm: {target}");
    }
}

/// What the restored database doesn't know is kept and shown: each command that ran has its result among the orphans.
pub async fn check_orphans(world: &World, allowed: &Allowed) {
    let marks = books::marks(world.root.path(), &HOSTS);
    for host in HOSTS {
        let ran = marks.keys().filter(|(at, mark)| at == host && allowed.unknown.contains(mark)).count();
        let shown = format!("{ran} results of unknown commands to be shown for {host}");
        let kept = eventually(SETTLE, &shown, async || {
            let server = world.get(&format!("/api/servers/{host}")).await?;
            let orphans = world.get(&format!("/api/agents/{}/orphans", server["agent_id"].as_str()?)).await?;
            let results = orphans.as_array()?.iter().filter(|o| o["event"]["type"] == "result").count();
            (results >= ran).then_some(results)
        })
        .await;
        println!("  {host}: {ran} unknown commands ran, {kept} results are kept as orphans");
    }
}

pub fn copy_dir(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}
