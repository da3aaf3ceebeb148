//! Hosts that introduce themselves twice, late, or to a database that has forgotten them.

use serde_json::json;
use signet_common::Jti;
use signet_common::messages::Event;
use signet_testkit::{Pair, eventually, on_both_pairs};

use super::support::TestApp;
use super::support::fake_agent::{FakeAgent, exited};
use super::{PATIENCE, ask_node, server, target_in};

on_both_pairs!(
    a_start_that_is_unknown_is_asked_for_its_hello,
    a_host_without_a_log_is_asked_for_its_hello,
    a_first_hello_whose_answer_was_lost_counts_again,
    a_first_hello_ends_what_was_meant_for_its_key_before,
    a_late_report_does_not_undo_an_admins_word,
    who_is_not_there_is_not_told_to_report,
    a_revoked_host_is_not_told_to_report,
);

/// Says hello when asked to, and works.
async fn comes_back(app: &TestApp, agent: &mut FakeAgent) {
    assert_eq!(agent.next_resume().await.log_id, None);
    agent.hello(app).await;
    agent.come_online(app).await;
    let id = ask_node(app, "h1").await;
    agent.run_next(exited(0, "", "")).await;
    target_in(app, &id, "h1", "succeeded").await;
}

async fn a_start_that_is_unknown_is_asked_for_its_hello(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    // It said its hello to a database that was then put back to what it was before.
    agent.restart();
    app.change("UPDATE heartbeats SET received_at = 0").await;
    agent.heartbeat().await;
    comes_back(&app, &mut agent).await;
}

async fn a_host_without_a_log_is_asked_for_its_hello(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    app.change("DELETE FROM logs").await;
    app.change("DELETE FROM heartbeats").await;
    agent.heartbeat().await;
    comes_back(&app, &mut agent).await;
}

async fn a_first_hello_whose_answer_was_lost_counts_again(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::new(&app, "h1", "web").await;
    let unheard = agent.draft(&app).await;
    assert_eq!(agent.say(&app, &unheard).await.status.as_u16(), 200);
    let between = ask_node(&app, "h1").await;
    target_in(&app, &between, "h1", "waiting").await;
    // It never heard the answer, so this is its first hello: it refuses what is older than this answer.
    agent.hello(&app).await;
    assert_eq!(target_in(&app, &between, "h1", "rejected").await["reason"], "new log");
    agent.consume().await;
    agent.come_online(&app).await;
    let after = ask_node(&app, "h1").await;
    agent.run_next(exited(0, "", "")).await;
    target_in(&app, &after, "h1", "succeeded").await;
}

async fn a_first_hello_ends_what_was_meant_for_its_key_before(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::new(&app, "h1", "web").await;
    let pem = agent.key.public().to_pem();
    app.put("/api/client-keys/h1", &json!({"public_key_pem": pem})).await.expect(200);
    let early = ask_node(&app, "h1").await;
    target_in(&app, &early, "h1", "waiting").await;
    agent.hello(&app).await;
    assert_eq!(target_in(&app, &early, "h1", "rejected").await["reason"], "new log");
}

async fn a_late_report_does_not_undo_an_admins_word(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    let mut witness = FakeAgent::enrol(&app, "h2", "web").await;
    let unknown = || Event::Accepted { jti: Jti::generate(), at: 1 };
    agent.report([unknown(), unknown()]).await;
    agent.journal.clear();
    agent.report([unknown(), unknown(), unknown()]).await;
    let hold = async |wanted: &str| {
        eventually(PATIENCE, &format!("h1 to be {wanted}"), async || {
            (server(&app, "h1").await["hold"] == wanted).then_some(())
        })
        .await;
    };
    hold("set_aside").await;
    app.post(&format!("/api/agents/{}/accept", agent.id), &json!({})).await.expect(200);
    hold("accepted").await;
    // Once more, from before it heard of that; the other host's report is taken in after it.
    agent.report_after(0).await;
    witness.report([unknown()]).await;
    eventually(PATIENCE, "the later report", async || {
        (server(&app, "h2").await["cursor"] == 1).then_some(())
    })
    .await;
    hold("accepted").await;
}

/// Its reports are missing for long; the sweep has seen it.
async fn falls_behind(app: &TestApp, agent: &mut FakeAgent) {
    agent.heartbeat_with(|h| h.head = 5).await;
    eventually(PATIENCE, "it to be behind", async || {
        (app.number("SELECT COUNT(*) FROM logs WHERE behind_head = 5").await == 1).then_some(())
    })
    .await;
    app.change("UPDATE heartbeats SET received_at = 0").await;
    app.change("UPDATE logs SET behind_since = 1").await;
}

async fn who_is_not_there_is_not_told_to_report(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    falls_behind(&app, &mut agent).await;
    eventually(PATIENCE, "the sweep to look", async || {
        (app.number("SELECT COUNT(*) FROM logs WHERE resumed_at > 0").await == 1).then_some(())
    })
    .await;
    // What was published before would come first.
    let id = ask_node(&app, "h1").await;
    agent.heartbeat_with(|h| h.head = 5).await;
    assert_eq!(agent.next_command().await.task_id.as_str(), id);
    app.change("UPDATE logs SET resumed_at = 1").await;
    assert_eq!(agent.next_resume().await.log_id, Some(agent.log_id.clone()));
}

async fn a_revoked_host_is_not_told_to_report(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    falls_behind(&app, &mut agent).await;
    app.delete("/api/servers/h1").await;
    let asked = "SELECT COUNT(*) FROM logs WHERE behind_since IS NOT NULL OR hold <> 'none'";
    assert_eq!(app.number(asked).await, 0);
}
