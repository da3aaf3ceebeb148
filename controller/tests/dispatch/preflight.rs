//! Back to a commit, on hosts that are asked for it first: one that is away, and a controller that goes away.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use signet_common::deploy::{CommitId, Deploy, Deployed, Phase};
use signet_common::envelope::PayloadType;
use signet_controller::limits::PREFLIGHT_ACCEPT_SECONDS;
use signet_testkit::{Pair, on_both_pairs};

use super::PATIENCE;
use super::support::TestApp;
use super::support::fake_agent::{FakeAgent, exited};

on_both_pairs!(a_host_that_is_away_holds_nobody_up,);

const OLD: &str = "0123456789abcdef0123456789abcdef01234567";
const NEW: &str = "123456789abcdef0123456789abcdef012345678";

/// Takes the next deployment or question. What it knows, and what is no deployment, is passed over.
async fn takes(agent: &mut FakeAgent) -> Deploy {
    loop {
        let message = agent.next().await;
        if message.kind() != PayloadType::Deploy {
            continue;
        }
        let deploy: Deploy = message.parse().unwrap().into_inner();
        if !agent.journal.iter().any(|known| known.event.jti() == Some(&deploy.jti)) {
            return deploy;
        }
    }
}

/// Says that it went well.
async fn agrees(agent: &mut FakeAgent, deploy: &Deploy) {
    let commit: CommitId = deploy.commit.clone().unwrap();
    let present = (deploy.phase == Phase::Preflight).then_some(true);
    let mut result = exited(0, "", "");
    result.deploy = Some(Box::new(Deployed { commit: Some(commit), present, ..Deployed::default() }));
    agent.result(&deploy.jti, result).await;
}

/// Takes what comes next, which is this, and does it.
async fn does(agent: &mut FakeAgent, phase: Phase, commit: &str) {
    let deploy = takes(agent).await;
    let asked = deploy.commit.as_ref().map(CommitId::as_str);
    assert_eq!((deploy.phase, asked), (phase, Some(commit)), "{}", agent.hostname);
    agent.accepted(&deploy.jti).await;
    agrees(agent, &deploy).await;
}

/// Deploys two commits to both hosts; gives the path of the second job.
async fn deployed_twice(app: &TestApp, agents: &mut [FakeAgent; 2]) -> String {
    let mut job = String::new();
    for commit in [OLD, NEW] {
        let body = json!({ "git_repo": "https://git.example/r.git", "dest_path": "/srv/app", "git_branch": commit,
            "targets": [{ "host": "h1" }, { "host": "h2" }] });
        job = asked(app, "/api/v1/jobs", &body).await;
        for agent in agents.iter_mut() {
            does(agent, Phase::Deploy, commit).await;
        }
        over(app, &job).await;
    }
    job
}

async fn asked(app: &TestApp, path: &str, body: &Value) -> String {
    let made = app.post(path, body).await.expect(202);
    format!("/api/v1/jobs/{}", made["data"]["job_id"].as_str().unwrap())
}

/// Waits for a job's end, which is a good one, and gives its log.
async fn over(app: &TestApp, job: &str) -> String {
    let shown = app.eventually(job, |job| job["data"]["finished_at"].is_string()).await["data"].take();
    let log = app.get(&format!("{job}/logs")).await.text;
    let statuses: Vec<&Value> =
        shown["targets"].as_array().unwrap().iter().map(|target| &target["status"]).collect();
    assert_eq!(statuses, ["SUCCESS", "SUCCESS"], "{shown} {log}");
    log
}

async fn two(app: &TestApp) -> [FakeAgent; 2] {
    [FakeAgent::enrol(app, "h1", "web").await, FakeAgent::enrol(app, "h2", "web").await]
}

async fn a_host_that_is_away_holds_nobody_up(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agents = two(&app).await;
    let last = deployed_twice(&app, &mut agents).await;
    let [mut there, mut away] = agents;
    away.leave();
    let began = Instant::now();
    let job = asked(&app, &format!("{last}/rollback"), &json!({ "commit": OLD })).await;
    does(&mut there, Phase::Preflight, OLD).await;
    // All that can be known is known, and the other host may still come.
    does(&mut there, Phase::Deploy, OLD).await;
    let waited = began.elapsed();
    let limit = Duration::from_secs(PREFLIGHT_ACCEPT_SECONDS);
    assert!(limit <= waited && waited < limit + PATIENCE / 2, "{waited:?}");
    let shown = app.get(&job).await.expect(200)["data"].take();
    assert_eq!(shown["status"], "RUNNING", "{shown}");
    // Back, it gets the deployment.
    away.consume().await;
    away.heartbeat().await;
    let deploy = loop {
        let deploy = takes(&mut away).await;
        if deploy.phase == Phase::Deploy {
            break deploy;
        }
        // What nobody waits for any more may still lie in its queue.
        assert_eq!(deploy.phase, Phase::Preflight);
    };
    assert_eq!(deploy.commit.as_ref().map(CommitId::as_str), Some(OLD));
    away.accepted(&deploy.jti).await;
    agrees(&mut away, &deploy).await;
    let log = over(&app, &job).await;
    assert_eq!(log.matches("PREFLIGHT [").count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_rabbitmq_another_controller_goes_on_with_the_question() {
    let first = TestApp::start(Pair::MariadbRabbitmq).await;
    let second = first.beside().await;
    let mut agents = two(&first).await;
    let last = deployed_twice(&first, &mut agents).await;
    let [mut one, mut two] = agents;
    let job = asked(&first, &format!("{last}/rollback"), &json!({ "commit": OLD })).await;
    let questions = [takes(&mut one).await, takes(&mut two).await];
    assert!(questions.iter().all(|question| question.phase == Phase::Preflight));
    one.accepted(&questions[0].jti).await;
    two.accepted(&questions[1].jti).await;
    agrees(&mut one, &questions[0]).await;
    // Whichever of the two has it goes.
    let holder = "SELECT COUNT(*) FROM jobs WHERE holder <> ''";
    assert_eq!(first.number(holder).await, 1);
    first.running.app.stop.cancel();
    drop(first);
    second.change("UPDATE jobs SET holder = 'another', lease_until = 1 WHERE finished_at IS NULL").await;
    assert!(one.try_next().await.is_none(), "nobody changes before all have the commit");
    agrees(&mut two, &questions[1]).await;
    does(&mut one, Phase::Deploy, OLD).await;
    does(&mut two, Phase::Deploy, OLD).await;
    let log = over(&second, &job).await;
    assert_eq!(log.matches("PREFLIGHT [").count(), 1, "asked once: {log}");
    let messages = "SELECT COUNT(*) FROM deliveries WHERE task_id LIKE '%-preflight'";
    assert_eq!(second.number(messages).await, 2);
}
