//! More than fits into one statement, one sweep or one host.

use signet_common::Jti;
use signet_controller::store::{Statement, Value};
use signet_testkit::{Pair, eventually, on_both_pairs};

use super::support::TestApp;
use super::support::fake_agent::FakeAgent;
use super::{PATIENCE, ask_node, target_in};

on_both_pairs!(ten_thousand_commands_for_a_host_that_stays_away_expire);

const DISPATCHES: Statement = Statement::same(
    "INSERT INTO dispatches (task_id, kind, created_at, timeout, released_batch, last_batch, open, live_seq) \
     VALUES {rows:8}",
);
const DELIVERIES: Statement = Statement::same(
    "INSERT INTO deliveries (task_id, hostname, ordinal, agent_id, jti, batch, state, reason, inferred, deadline_at, \
     live_seq) VALUES {rows:11}",
);

/// Writes what so many POSTs would have written for a host, but for the messages: nothing is sent of these.
async fn waiting_for(app: &TestApp, agent: &FakeAgent, count: usize, deadline_at: i64) {
    let numbers: Vec<usize> = (0..count).collect();
    let mut tx = app.db().begin().await.unwrap();
    for some in numbers.chunks(256) {
        let id = |n: &usize| format!("many-{n:06}");
        let dispatches = some.iter().map(|n| -> [Value; 8] {
            [
                id(n).into(),
                "command".into(),
                1_i64.into(),
                60_i64.into(),
                0_i64.into(),
                0_i64.into(),
                1_i64.into(),
                1_i64.into(),
            ]
        });
        tx.run(DISPATCHES.query().rows(dispatches)).await.unwrap();
        let deliveries = some.iter().map(|n| -> [Value; 11] {
            [
                id(n).into(),
                (&agent.hostname).into(),
                1_i64.into(),
                (&agent.id).into(),
                (&Jti::generate()).into(),
                0_i64.into(),
                "waiting".into(),
                "".into(),
                0_i64.into(),
                deadline_at.into(),
                1_i64.into(),
            ]
        });
        tx.run(DELIVERIES.query().rows(deliveries)).await.unwrap();
    }
    tx.commit().await.unwrap();
}

async fn offline(app: &TestApp) -> FakeAgent {
    let mut agent = FakeAgent::new(app, "away", "web").await;
    agent.hello(app).await;
    agent
}

async fn ten_thousand_commands_for_a_host_that_stays_away_expire(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = offline(&app).await;
    waiting_for(&app, &agent, 10_000, 1).await;
    eventually(2 * PATIENCE, "all to expire", async || {
        (app.number("SELECT COUNT(*) FROM deliveries WHERE state = 'expired'").await == 10_000).then_some(())
    })
    .await;
    assert_eq!(app.number("SELECT COUNT(*) FROM dispatches WHERE open = 1").await, 0);
    // The host is as good as any afterwards.
    agent.consume().await;
    agent.come_online(&app).await;
    let id = ask_node(&app, "away").await;
    assert_eq!(agent.next_command().await.task_id.as_str(), id);
    target_in(&app, &id, "away", "sent").await;
}

/// SQLite takes at most 32,766 values in a statement.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_memory_forty_thousand_end_with_their_host() {
    let app = TestApp::start(Pair::SqliteMemory).await;
    let agent = offline(&app).await;
    waiting_for(&app, &agent, 40_000, i64::MAX).await;
    let gone = app.delete("/api/servers/away").await;
    assert_eq!(gone.status.as_u16(), 204, "{}", gone.text);
    let ended = "SELECT COUNT(*) FROM deliveries WHERE state = 'rejected' AND reason = 'host removed'";
    assert_eq!(app.number(ended).await, 40_000);
    assert_eq!(app.number("SELECT COUNT(*) FROM dispatches WHERE open = 1").await, 0);
}
