//! Hosts with agents, when something goes wrong beside them.

use serde_json::{Value, json};
use signet_common::deploy::{CommitId, Deploy, Deployed, Phase};
use signet_common::messages::{Event, Outcome, Rejection};
use signet_testkit::{Pair, eventually, on_both_pairs};

use crate::leases::{asked, body as over_ssh, with_hanging_ansible};
use crate::support::fake_agent::{FakeAgent, ended, exited};
use crate::support::{PATIENCE, TestApp};

on_both_pairs!(
    what_hosts_were_asked_ends_with_the_job,
    a_job_that_cannot_be_read_is_in_nobodys_way,
    a_late_word_replaces_an_inferred_end,
    a_late_refusal_replaces_an_inferred_end,
    what_a_job_logs_in_with_stays_until_its_end,
    what_nobody_knows_of_a_request_is_told,
    a_retry_says_where_the_branch_went
);

fn body() -> Value {
    json!({ "git_repo": "https://h/x.git", "git_branch": "0".repeat(40), "dest_path": "/srv/a",
        "targets": [{ "host": "h1" }] })
}

/// Once the controller is about to send the job's messages.
async fn about_to_send(app: &TestApp, path: &str) {
    app.eventually(path, |job| job["data"]["commit"].is_string()).await;
    // Its lease is one that was renewed a moment ago, or never.
    for _ in 0..20 {
        let job = app.get(path).await.expect(200);
        assert_eq!(job["data"]["status"], "RUNNING", "{job}");
    }
}

/// What the database refuses once is tried again, and no host is told to be over before it is.
#[tokio::test]
async fn a_database_that_fails_for_a_moment_ends_no_job() {
    let app = TestApp::start(Pair::SqliteMemory).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    app.change(
        "CREATE TRIGGER broken BEFORE INSERT ON dispatches \
         BEGIN INSERT INTO counters (name, last) VALUES ('jobs', 0); END",
    )
    .await;
    let path = asked(&app, &body()).await;
    about_to_send(&app, &path).await;
    app.change("DROP TRIGGER broken").await;
    let deploy = agent.next_deploy().await;
    agent.accepted(&deploy.jti).await;
    agent.result(&deploy.jti, exited(0, "", "")).await;
    let over = app.eventually(&path, |job| job["data"]["finished_at"].is_string()).await;
    assert_eq!(over["data"]["status"], "SUCCESS", "{over}");
    let log = app.get(&format!("{path}/logs")).await.text;
    assert_eq!((log.matches("PLAY [all]").count(), log.matches("PLAY RECAP").count()), (1, 1), "{log}");
}

/// A controller that lost a job while it was about to send sends nothing, and leaves the job's end to who has it.
#[tokio::test]
async fn who_lost_a_job_sends_nothing_of_it() {
    let app = TestApp::start(Pair::SqliteMemory).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    app.change(
        "CREATE TRIGGER taken AFTER INSERT ON dispatches BEGIN UPDATE jobs SET holder = 'another'; END",
    )
    .await;
    let path = asked(&app, &body()).await;
    about_to_send(&app, &path).await;
    assert_eq!(app.number("SELECT COUNT(*) FROM dispatches").await, 0);
    assert!(agent.try_next().await.is_none());
    app.change("DROP TRIGGER taken").await;
    // It is nobody's once its lease ran out.
    eventually(PATIENCE, "the job to be taken again", async || {
        app.change("UPDATE jobs SET lease_until = 1").await;
        (app.number("SELECT COUNT(*) FROM dispatches").await == 1).then_some(())
    })
    .await;
    let deploy = agent.next_deploy().await;
    agent.accepted(&deploy.jti).await;
    agent.result(&deploy.jti, exited(0, "", "")).await;
    let over = app.eventually(&path, |job| job["data"]["finished_at"].is_string()).await;
    assert_eq!(over["data"]["status"], "SUCCESS", "{over}");
}

/// A job has the commit that was noted first, whatever its controller found.
#[tokio::test]
async fn the_first_commit_stays() {
    let app = TestApp::start(Pair::SqliteMemory).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    app.change(
        "CREATE TRIGGER first AFTER UPDATE OF commit_id ON jobs \
         BEGIN UPDATE jobs SET commit_id = '1111111111111111111111111111111111111111'; END",
    )
    .await;
    asked(&app, &body()).await;
    assert_eq!(agent.next_deploy().await.commit.unwrap().as_str(), "1".repeat(40));
}

async fn at_work(agent: &mut FakeAgent, phase: Phase) -> Deploy {
    let deploy = agent.next_deploy().await;
    assert_eq!(deploy.phase, phase);
    agent.accepted(&deploy.jti).await;
    agent.started(&deploy.jti).await;
    deploy
}

async fn what_hosts_were_asked_ends_with_the_job(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    let mut unknown = body();
    unknown.as_object_mut().unwrap().remove("git_branch");
    unknown["git_repo"] = "https://127.0.0.1:1/x.git".into();
    unknown["timeout"] = 600.into();
    let over = async |path: &str| {
        let over = app.eventually(path, |job| job["data"]["finished_at"].is_string()).await;
        over["data"].clone()
    };

    let path = asked(&app, &unknown).await;
    let question = at_work(&mut agent, Phase::Resolve).await;
    app.post(&format!("{path}/cancel"), &json!({})).await.expect(202);
    assert_eq!(agent.next_cancel().await.cancels, question.jti);
    assert_eq!(app.get(&path).await.expect(200)["data"]["status"], "RUNNING");
    agent.result(&question.jti, ended(Outcome::Cancelled)).await;
    assert_eq!(over(&path).await["status"], "CANCELLED");

    // The same at the end of its time.
    let path = asked(&app, &unknown).await;
    let question = at_work(&mut agent, Phase::Resolve).await;
    app.change(
        "UPDATE jobs SET holder = 'another', lease_until = 1, started_at = started_at - 601000000 \
         WHERE status = 'RUNNING'",
    )
    .await;
    assert_eq!(agent.next_cancel().await.cancels, question.jti);
    agent.result(&question.jti, ended(Outcome::Cancelled)).await;
    let late = over(&path).await;
    assert_eq!(
        (&late["status"], &late["reason"]),
        (&json!("FAILED"), &json!("the job was not done within 600 s"))
    );

    // Back to what was there before.
    let path = asked(&app, &body()).await;
    let deploy = at_work(&mut agent, Phase::Deploy).await;
    agent.result(&deploy.jti, exited(0, "", "")).await;
    over(&path).await;
    app.change("UPDATE job_targets SET commit_id = '0000000000000000000000000000000000000000'").await;
    let back = app.post(&format!("{path}/rollback"), &json!({ "commit": "0".repeat(40) })).await.expect(202);
    let path = format!("/api/v1/jobs/{}", back["data"]["job_id"].as_str().unwrap());
    let question = at_work(&mut agent, Phase::Preflight).await;
    app.post(&format!("{path}/cancel"), &json!({})).await.expect(202);
    assert_eq!(agent.next_cancel().await.cancels, question.jti);
    agent.result(&question.jti, ended(Outcome::Cancelled)).await;
    assert_eq!(over(&path).await["status"], "CANCELLED");
}

/// The document lets unknown fields stand; that they did nothing is the log's first line.
async fn what_nobody_knows_of_a_request_is_told(pair: Pair) {
    let app = TestApp::start(pair).await;
    let _agent = FakeAgent::enrol(&app, "h1", "web").await;
    let plain = asked(&app, &body()).await;
    let lines = app.get(&format!("{plain}/logs?format=json")).await.expect(200);
    assert_eq!(lines["data"]["lines"], json!([]));
    let mut misspelt = body();
    misspelt["canry"] = 1.into();
    misspelt["bell\u{1b}[31m"] = "x-secret".into();
    misspelt["targets"][0]["hostt"] = "h2".into();
    let path = asked(&app, &misspelt).await;
    let text = app.get(&format!("{path}/logs")).await.text;
    let first = text.lines().next().unwrap();
    assert!(first.starts_with("[WARNING]: ignored, because no such field is known: "), "{text}");
    for name in ["canry", "bell\\x1b[31m", "targets[0].hostt"] {
        assert!(first.contains(name), "no {name}: {first}");
    }
    assert!(!first.contains("x-secret"));
    let lines = app.get(&format!("{path}/logs?format=json")).await.expect(200);
    assert_eq!(
        (&lines["data"]["lines"][0]["line"], &lines["data"]["lines"][0]["id"]),
        (&json!(first), &json!(1))
    );
    app.post(&format!("{path}/cancel"), &json!({})).await.expect(202);
}

/// A retry asks for the same as the job did: of a branch that is what it leads to now, and the log says so.
async fn a_retry_says_where_the_branch_went(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    let mut by_name = body();
    by_name["git_branch"] = "main".into();
    by_name["git_repo"] = "https://127.0.0.1:1/x.git".into();
    let mut path = asked(&app, &by_name).await;
    let mut logs = Vec::new();
    for commit in ["a", "a", "b"] {
        let commit: CommitId = commit.repeat(40).parse().unwrap();
        for phase in [Phase::Resolve, Phase::Deploy] {
            let asked = at_work(&mut agent, phase).await;
            let mut result = exited(0, "", "");
            result.deploy = Some(Box::new(Deployed { commit: Some(commit.clone()), ..Deployed::default() }));
            agent.result(&asked.jti, result).await;
        }
        app.eventually(&path, |job| job["data"]["status"] == "SUCCESS").await;
        logs.push(app.get(&format!("{path}/logs")).await.text);
        let again = app.post(&format!("{path}/retry"), &json!({})).await.expect(202);
        path = format!("/api/v1/jobs/{}", again["data"]["job_id"].as_str().unwrap());
    }
    let said = |log: &str| {
        log.lines().filter(|line| line.contains(" since job_")).map(str::to_owned).collect::<Vec<_>>()
    };
    let wanted = [vec![], vec![], vec!["main is aaaaaaaaaaaa..bbbbbbbbbbbb since job_2".to_owned()]];
    assert_eq!(logs.iter().map(|log| said(log)).collect::<Vec<_>>(), wanted);
}

async fn a_job_that_cannot_be_read_is_in_nobodys_way(pair: Pair) {
    let dir = tempfile::tempdir().unwrap();
    let app = with_hanging_ansible(pair, dir.path()).await;
    let running = async |path: &str| app.eventually(path, |job| job["data"]["status"] == "RUNNING").await;
    let ended = async |number: i64| {
        let count = "SELECT COUNT(*) FROM jobs WHERE status = 'FAILED' AND reason LIKE '%can''t be read%' \
            AND finished_at IS NOT NULL";
        eventually(PATIENCE, "its end", async || (app.number(count).await == number).then_some(())).await;
    };
    let first = asked(&app, &over_ssh("h")).await;
    running(&first).await;
    // It waits for the place, and can't be read when its turn comes.
    asked(&app, &over_ssh("h")).await;
    app.change("UPDATE jobs SET options = '[' WHERE status = 'PENDING'").await;
    app.post(&format!("{first}/cancel"), &json!({})).await.expect(202);
    ended(1).await;
    let next = asked(&app, &over_ssh("h")).await;
    running(&next).await;
    // Another controller's, that is gone.
    app.change("UPDATE jobs SET options = '[', holder = 'another', lease_until = 1 WHERE status = 'RUNNING'")
        .await;
    ended(2).await;
    running(&asked(&app, &over_ssh("h")).await).await;
}

async fn a_late_refusal_replaces_an_inferred_end(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    let path = asked(&app, &body()).await;
    let deploy = agent.next_deploy().await;
    app.change("UPDATE deliveries SET deadline_at = 1").await;
    let lost = app.eventually(&path, |job| job["data"]["finished_at"].is_string()).await["data"].take();
    assert_eq!(lost["targets"][0]["status"], "UNREACHABLE", "{lost}");
    assert!(lost["targets"][0]["reason"].as_str().unwrap().ends_with("it may have run"), "{lost}");
    let (jti, reason) = (deploy.jti, Rejection::Policy);
    agent.report([Event::Rejected { jti, at: 1, reason, detail: "not below /srv".into() }]).await;
    let told =
        app.eventually(&path, |job| job["data"]["targets"][0]["status"] == "FAILED").await["data"].take();
    assert_eq!(told["targets"][0]["reason"], "policy: not below /srv", "{told}");
    for kept in ["status", "reason", "finished_at"] {
        assert_eq!(told[kept], lost[kept], "{kept}: {told}");
    }
    let log = app.get(&format!("{path}/logs")).await.text;
    let tail = log.split("PLAY RECAP").nth(1).unwrap();
    assert!(tail.contains("fatal: [h1]: FAILED! =>") && tail.contains("policy: not below /srv"), "{log}");

    // In time, it is told once.
    let path = asked(&app, &body()).await;
    let (jti, reason) = (agent.next_deploy().await.jti, Rejection::Policy);
    agent.report([Event::Rejected { jti, at: 1, reason, detail: "not now".into() }]).await;
    let over = app.eventually(&path, |job| job["data"]["finished_at"].is_string()).await;
    let log = app.get(&format!("{path}/logs")).await.text;
    assert_eq!(over["data"]["targets"][0]["reason"], "policy: not now", "{over}");
    assert_eq!(log.matches("fatal: [h1]").count(), 1, "{log}");
}

async fn a_late_word_replaces_an_inferred_end(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    let path = asked(&app, &body()).await;
    let deploy = at_work(&mut agent, Phase::Deploy).await;
    app.eventually(&path, |job| job["data"]["targets"][0]["status"] == "RUNNING").await;
    app.change("UPDATE deliveries SET deadline_at = 1").await;
    let lost = app.eventually(&path, |job| job["data"]["finished_at"].is_string()).await;
    assert_eq!(
        (&lost["data"]["status"], &lost["data"]["targets"][0]["status"]),
        (&json!("FAILED"), &json!("UNREACHABLE"))
    );
    agent.result(&deploy.jti, exited(0, "here it is\n", "")).await;
    let told = app.eventually(&path, |job| job["data"]["status"] == "SUCCESS").await;
    let target = &told["data"]["targets"][0];
    assert_eq!(
        (&target["status"], &told["data"]["reason"]),
        (&json!("SUCCESS"), &lost["data"]["reason"]),
        "{told}"
    );
    assert_eq!(told["data"]["finished_at"], lost["data"]["finished_at"]);
    let log = app.get(&format!("{path}/logs")).await.text;
    let tail = log.split("PLAY RECAP").nth(1).unwrap();
    assert!(tail.contains("here it is") && tail.contains("ok: [h1]"), "{log}");
    // An end by hand is one that nobody's word replaces, nor tells of.
    let path = asked(&app, &body()).await;
    let deploy = at_work(&mut agent, Phase::Deploy).await;
    app.eventually(&path, |job| job["data"]["targets"][0]["status"] == "RUNNING").await;
    app.change("UPDATE job_targets SET status = 'FAILED', reason = 'by hand' WHERE status = 'RUNNING'").await;
    agent.result(&deploy.jti, exited(0, "", "")).await;
    let over = app.eventually(&path, |job| job["data"]["finished_at"].is_string()).await;
    assert_eq!(over["data"]["targets"][0]["reason"], "by hand", "{over}");
    let log = app.get(&format!("{path}/logs")).await.text;
    assert!(!log.contains("ok: [h1]"), "{log}");
}

async fn what_a_job_logs_in_with_stays_until_its_end(pair: Pair) {
    let dir = tempfile::tempdir().unwrap();
    let app = with_hanging_ansible(pair, dir.path()).await;
    let kept = async || app.number("SELECT COUNT(*) FROM job_secrets").await;
    let path = asked(&app, &over_ssh("h")).await;
    app.change("UPDATE job_secrets SET expires_at = 1").await;
    app.running.app.jobs.forget_secrets().await.unwrap();
    assert_eq!(kept().await, 1);
    app.eventually(&path, |job| job["data"]["status"] == "RUNNING").await;
    app.post(&format!("{path}/cancel"), &json!({})).await.expect(202);
    app.eventually(&path, |job| job["data"]["finished_at"].is_string()).await;
    app.running.app.jobs.forget_secrets().await.unwrap();
    assert_eq!(kept().await, 0);
}
