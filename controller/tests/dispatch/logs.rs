//! What a report is worth: cursors, gaps, rolled-back and cloned hosts, new logs, strangers.

use serde_json::json;
use signet_common::Jti;
use signet_common::SigningKey;
use signet_common::chain::{ChainHash, Chained};
use signet_common::messages::{Event, Standing};
use signet_common::time::Micros;
use signet_testkit::{Pair, eventually, on_both_pairs};

use super::support::fake_agent::{FakeAgent, exited};
use super::support::{PATIENCE, TestApp};
use super::{ask_node, server, target_in, task};

on_both_pairs!(
    a_report_is_taken_once,
    a_gap_moves_the_cursor,
    a_rolled_back_host_is_set_aside_until_it_is_accepted,
    a_clone_is_found_by_its_chain,
    a_heartbeat_below_the_cursor_is_a_rollback,
    a_new_log_ends_what_was_open,
    an_unknown_log_is_followed_from_its_start,
    strangers_and_liars_change_nothing,
    an_event_about_an_unknown_message_is_an_orphan,
    a_used_nonce_counts_no_more,
    another_key_for_a_known_host_waits_for_an_admin,
);

async fn a_report_is_taken_once(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    let id = ask_node(&app, "h1").await;
    let command = agent.run_next(exited(7, "out\n", "")).await;
    target_in(&app, &id, "h1", "failed").await;
    // All of it again, and then more: what is known is skipped, what is new is taken.
    agent.report_after(0).await;
    let second = ask_node(&app, "h1").await;
    agent.run_next(exited(0, "", "")).await;
    target_in(&app, &second, "h1", "succeeded").await;
    let results = app.get(&format!("/api/tasks/{id}/results")).await.expect(200);
    assert_eq!((results.as_array().unwrap().len(), &results[0]["exit_code"]), (1, &json!(7)));
    assert_eq!(server(&app, "h1").await["cursor"], 6);
    drop(command);
}

async fn a_gap_moves_the_cursor(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    let id = ask_node(&app, "h1").await;
    let command = agent.next_command().await;
    let lost = || Event::Accepted { jti: Jti::generate(), at: 1 };
    agent.write([lost(), lost(), lost()]);
    // Events 1 to 3 are gone; the gap stands for them and the result follows on it.
    let chain_at_to = agent.chain();
    let gap = Chained::next(ChainHash::default(), 3, Event::Gap { from: 1, to: 3, chain_at_to }).unwrap();
    agent.journal.clear();
    agent.journal.push(gap);
    agent.report_after(0).await;
    agent.result(&command.jti, exited(0, "", "")).await;
    target_in(&app, &id, "h1", "succeeded").await;
    assert_eq!(server(&app, "h1").await["cursor"], 4);
}

async fn a_rolled_back_host_is_set_aside_until_it_is_accepted(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    let done = ask_node(&app, "h1").await;
    agent.run_next(exited(0, "", "")).await;
    target_in(&app, &done, "h1", "succeeded").await;
    let open = ask_node(&app, "h1").await;
    agent.next_command().await;

    agent.journal.truncate(1);
    agent.restart();
    let welcome = agent.hello(&app).await;
    assert_eq!(welcome.standing, Standing::SetAside, "{:?}", welcome.reason);
    target_in(&app, &open, "h1", "lost").await;
    assert_eq!(server(&app, "h1").await["hold"], "set_aside");
    agent.heartbeat().await;
    let held = ask_node(&app, "h1").await;
    target_in(&app, &held, "h1", "waiting").await;

    app.post(&format!("/api/agents/{}/accept", agent.id), &json!({})).await.expect(200);
    assert_eq!(agent.next_resume().await.log_id, None);
    assert!(agent.hello(&app).await.new_log);
    agent.begin_log();
    let welcome = agent.hello(&app).await;
    assert_eq!((welcome.standing, welcome.new_log, welcome.cursor), (Standing::Accepted, false, 0));
    assert_eq!(target_in(&app, &held, "h1", "rejected").await["reason"], "new log");
    agent.heartbeat().await;
    let after = ask_node(&app, "h1").await;
    agent.run_next(exited(0, "", "")).await;
    target_in(&app, &after, "h1", "succeeded").await;
}

async fn a_clone_is_found_by_its_chain(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    let id = ask_node(&app, "h1").await;
    agent.run_next(exited(0, "", "")).await;
    target_in(&app, &id, "h1", "succeeded").await;
    // The twin has the same key and log, and another past.
    agent.journal.truncate(2);
    agent
        .report([
            Event::Accepted { jti: Jti::generate(), at: 1 },
            Event::Accepted { jti: Jti::generate(), at: 2 },
        ])
        .await;
    eventually(PATIENCE, "the clone to be found", async || {
        (server(&app, "h1").await["hold"] == "set_aside").then_some(())
    })
    .await;
}

async fn a_heartbeat_below_the_cursor_is_a_rollback(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    let id = ask_node(&app, "h1").await;
    agent.run_next(exited(0, "", "")).await;
    target_in(&app, &id, "h1", "succeeded").await;
    agent.heartbeat_with(|h| h.head = 1).await;
    eventually(PATIENCE, "the rollback to be found", async || {
        (server(&app, "h1").await["hold"] == "set_aside").then_some(())
    })
    .await;
}

async fn a_new_log_ends_what_was_open(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    let open = ask_node(&app, "h1").await;
    let command = agent.next_command().await;
    agent.begin_log();
    agent.start_id = signet_common::StartId::generate();
    let welcome = agent.hello(&app).await;
    assert_eq!((welcome.standing, welcome.cursor), (Standing::Accepted, 0));
    let lost = target_in(&app, &open, "h1", "lost").await;
    assert_eq!(lost["reason"], "new log; it may have run");
    // The agent's own word replaces what was inferred.
    agent.result(&command.jti, exited(0, "late\n", "")).await;
    target_in(&app, &open, "h1", "succeeded").await;
}

async fn an_unknown_log_is_followed_from_its_start(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::new(&app, "h1", "web").await;
    // As after a restore: the journal has a past that this database has never heard of.
    agent.new_log = false;
    agent.write([
        Event::Accepted { jti: Jti::generate(), at: 1 },
        Event::Accepted { jti: Jti::generate(), at: 2 },
    ]);
    let welcome = agent.hello(&app).await;
    assert_eq!((welcome.standing, welcome.cursor, welcome.chain), (Standing::Accepted, 0, None));
    agent.consume().await;
    agent.heartbeat().await;
    assert_eq!(server(&app, "h1").await["hold"], "catching_up");
    let held = ask_node(&app, "h1").await;
    target_in(&app, &held, "h1", "waiting").await;
    agent.report_after(0).await;
    agent.run_next(exited(0, "", "")).await;
    target_in(&app, &held, "h1", "succeeded").await;
    assert_eq!(server(&app, "h1").await["hold"], "none");
}

async fn strangers_and_liars_change_nothing(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut victim = FakeAgent::enrol(&app, "victim", "web").await;
    let mut liar = FakeAgent::enrol(&app, "liar", "web").await;
    let id = ask_node(&app, "victim").await;
    let jti = victim.next_command().await.jti;
    // Another host's word on a message that it was not in the audience of.
    liar.result(&jti, exited(0, "lies", "")).await;
    // A stranger under the victim's name.
    let mut stranger = FakeAgent::with_key(&app, SigningKey::generate().unwrap(), "victim", "web").await;
    stranger.log_id = victim.log_id.clone();
    stranger.result(&jti, exited(0, "forged", "")).await;
    // The liar's next true word comes after both.
    let own = ask_node(&app, "liar").await;
    liar.run_next(exited(0, "", "")).await;
    target_in(&app, &own, "liar", "succeeded").await;
    assert_eq!(task(&app, &id).await["targets"][0]["state"], "sent");
    victim.result(&jti, exited(5, "truth", "")).await;
    assert_eq!(target_in(&app, &id, "victim", "failed").await["exit_code"], 5);
}

async fn an_event_about_an_unknown_message_is_an_orphan(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    agent.result(&Jti::generate(), exited(0, "whose?", "")).await;
    let orphans = eventually(PATIENCE, "the orphan to be kept", async || {
        let orphans = app.get(&format!("/api/agents/{}/orphans", agent.id)).await.expect(200);
        (!orphans.as_array().unwrap().is_empty()).then_some(orphans)
    })
    .await;
    assert_eq!((&orphans[0]["seq"], &orphans[0]["event"]["type"]), (&json!(1), &json!("result")));
}

async fn a_used_nonce_counts_no_more(pair: Pair) {
    let app = TestApp::start(pair).await;
    let agent = FakeAgent::new(&app, "h1", "web").await;
    let hello = agent.draft(&app).await;
    assert_eq!(agent.say(&app, &hello).await.status.as_u16(), 200);
    let again = agent.say(&app, &hello).await;
    assert_eq!(again.status.as_u16(), 401, "{}", again.text);
    let mut without = agent.draft(&app).await;
    without.join = None;
    assert_eq!(agent.say(&app, &without).await.status.as_u16(), 200, "a known key needs no token");
    let other = FakeAgent::new(&app, "h2", "web").await;
    let mut without = other.draft(&app).await;
    without.join = None;
    assert_eq!(other.say(&app, &without).await.status.as_u16(), 401);
    let early = Micros::now().seconds() - 86_400;
    let mut off = agent.draft(&app).await;
    off.iat = early;
    assert_eq!(agent.say(&app, &off).await.status.as_u16(), 200, "hello is never refused for the clock");
}

async fn another_key_for_a_known_host_waits_for_an_admin(pair: Pair) {
    let app = TestApp::start(pair).await;
    let _first = FakeAgent::enrol(&app, "h1", "web").await;
    let mut second = FakeAgent::new(&app, "h1", "web").await;
    let welcome = second.hello(&app).await;
    assert_eq!((welcome.standing, welcome.broker), (Standing::Pending, None));
    let detail = server(&app, "h1").await;
    assert_eq!(detail["pending"], json!([second.key.public().id().to_string()]));
    app.post(&format!("/api/agents/{}/accept", second.id), &json!({})).await.expect(200);
    assert_eq!(second.hello(&app).await.standing, Standing::Accepted);
    second.consume().await;
    second.come_online(&app).await;
    let id = ask_node(&app, "h1").await;
    second.run_next(exited(0, "", "")).await;
    target_in(&app, &id, "h1", "succeeded").await;
}
