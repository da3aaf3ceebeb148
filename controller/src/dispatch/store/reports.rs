//! The agents' signed reports that tell an end, kept as proof.

use signet_common::envelope::{Envelope, PayloadType};
use signet_common::time::Micros;
use signet_common::{AgentId, Jti, TaskId};

use super::*;
use crate::limits::BATCH_ROWS_MAX;
use crate::store::{Store, StoreError, Tx, Value, corrupt};

/// A report that tells somebody's end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Proof<'a> {
    pub(crate) agent: &'a AgentId,
    pub(crate) jti: &'a Jti,
    pub(crate) envelope: &'a Envelope,
}

/// Keeps reports as they were signed.
pub(crate) async fn put_reports(tx: &mut Tx, proofs: &[Proof<'_>], now: Micros) -> Result<(), StoreError> {
    for some in proofs.chunks(BATCH_ROWS_MAX) {
        let rows = some.iter().map(|proof| -> [Value; 6] {
            let e = proof.envelope;
            [
                proof.agent.into(),
                proof.jti.into(),
                e.keyid.as_str().into(),
                e.sig.as_str().into(),
                e.body.as_ref().into(),
                now.into(),
            ]
        });
        tx.run(INSERT_REPORTS.query().rows(rows)).await?;
    }
    Ok(())
}

#[derive(sqlx::FromRow)]
struct ReportRow {
    agent_id: String,
    jti: String,
    keyid: String,
    sig: String,
    body: Vec<u8>,
}

/// These reports, each named by its agent and its id.
pub(crate) async fn reports(
    store: &Store,
    wanted: &[(AgentId, Jti)],
) -> Result<Vec<(AgentId, Jti, Envelope)>, StoreError> {
    let pairs = wanted.iter().map(|(agent, jti)| -> [Value; 2] { [agent.into(), jti.into()] });
    let lists = SELECT_REPORTS.query().list(wanted.iter().map(|(agent, _)| agent));
    let query = lists.list(wanted.iter().map(|(_, jti)| jti)).rows(pairs);
    let rows: Vec<ReportRow> = store.all(query).await?;
    let one = |row: ReportRow| {
        let payload_type = PayloadType::Report.as_str().to_owned();
        let envelope = Envelope { payload_type, keyid: row.keyid, sig: row.sig, body: row.body.into() };
        Ok((row.agent_id.parse().map_err(corrupt)?, row.jti.parse().map_err(corrupt)?, envelope))
    };
    rows.into_iter().map(one).collect()
}

#[derive(sqlx::FromRow)]
struct KeptRow {
    #[sqlx(flatten)]
    message: MessageRow,
    kept: i64,
}

/// A task's messages by id, after this one; none for a body that may hold secrets.
pub(crate) async fn task_messages(
    store: &Store,
    task: &TaskId,
    after: &str,
    limit: usize,
) -> Result<Vec<(Jti, Option<Envelope>)>, StoreError> {
    let rows: Vec<KeptRow> = store.all(TASK_MESSAGES.bind(task).bind(after).bind(limit as u64)).await?;
    let one = |row: KeptRow| {
        let kept = row.kept == KEPT;
        let message = Message::try_from(row.message)?;
        Ok((message.jti, Some(message.envelope).filter(|_| kept)))
    };
    rows.into_iter().map(one).collect()
}

/// Forgets some reports from before `before`; says how many.
pub(crate) async fn delete_old_reports(
    store: &Store,
    before: Micros,
    limit: usize,
) -> Result<usize, StoreError> {
    let rows: Vec<(String, String)> = store.all(OLD_REPORTS.bind(before).bind(limit as u64)).await?;
    if !rows.is_empty() {
        let mut tx = store.begin().await?;
        for (agent, jti) in &rows {
            tx.run(DELETE_REPORT.bind(agent.as_str()).bind(jti.as_str())).await?;
        }
        tx.commit().await?;
    }
    Ok(rows.len())
}
