//! What a hello means for its agent's log, and what an admin's word on a host that is set aside does.

use serde_json::json;
use signet_common::chain::ChainHash;
use signet_common::messages::{Hello, Standing};
use signet_common::time::Micros;
use signet_common::{AgentId, StartId};

use super::logs::{Cursor, HelloLog, Hold, Verdict, judge_hello};
use super::service::Dispatch;
use super::store::{self, LogRow};
use crate::audit::{self, Action, Author, Note};
use crate::error::{Error, Result};
use crate::store::Tx;

/// What the answer to a hello says about the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HelloAnswer {
    /// Accepted or set aside.
    pub standing: Standing,
    /// Why it is set aside.
    pub reason: Option<String>,
    /// The last event that was taken in.
    pub cursor: u64,
    /// The chain there; absent when the log was unknown.
    pub chain: Option<ChainHash>,
    /// The agent must begin a new log.
    pub new_log: bool,
}

/// Why dispatch to a host is held, for those who show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standings {
    /// `none`, `catching_up`, `set_aside` or `accepted`.
    pub hold: &'static str,
    /// More about it.
    pub reason: String,
    /// The last event that was taken in.
    pub cursor: u64,
}

impl Dispatch {
    /// Takes in what an accepted agent's hello says about its log, in the transaction that answers it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn hello(
        &self,
        tx: &mut Tx,
        agent: &AgentId,
        hello: &Hello,
        now: Micros,
    ) -> Result<HelloAnswer> {
        let mut rows = store::lock_cursors(tx, std::slice::from_ref(agent)).await?;
        let known = rows.remove(agent);
        let log = HelloLog {
            log_id: hello.log_id.clone(),
            head: hello.head,
            chain: hello.chain,
            new_log: hello.new_log,
        };
        let past = store::is_past_log(tx, agent, &log.log_id).await?;
        let verdict = judge_hello(known.as_ref().map(|r| &r.cursor), &log, past);
        if verdict != Verdict::Continue {
            tracing::info!(%agent, ?verdict, log = %log.log_id, head = log.head, "hello");
        }
        let row = self.after_hello(tx, known, agent, &log, &verdict, now).await?;
        let row = LogRow {
            report_n: if row.start_id == hello.start_id { row.report_n } else { 0 },
            start_id: hello.start_id.clone(),
            ..row
        };
        store::put_cursors(tx, [&row]).await?;
        let aside = row.cursor.hold == Hold::SetAside;
        Ok(HelloAnswer {
            standing: if aside { Standing::SetAside } else { Standing::Accepted },
            reason: aside.then(|| row.hold_reason.clone()),
            cursor: row.cursor.seq,
            chain: (verdict != Verdict::CatchUp).then_some(row.cursor.chain),
            new_log: verdict == Verdict::NewLog,
        })
    }

    async fn after_hello(
        &self,
        tx: &mut Tx,
        known: Option<LogRow>,
        agent: &AgentId,
        log: &HelloLog,
        verdict: &Verdict,
        now: Micros,
    ) -> Result<LogRow> {
        let start_id = known.as_ref().map_or_else(StartId::generate, |r| r.start_id.clone());
        let begin = |hold, reason: &str, catch_up_to| LogRow {
            agent_id: agent.clone(),
            cursor: Cursor {
                log_id: log.log_id.clone(),
                seq: 0,
                chain: ChainHash::genesis(&log.log_id),
                hold,
            },
            hold_reason: reason.to_owned(),
            catch_up_to,
            start_id,
            report_n: 0,
            behind_head: None,
            behind_since: None,
        };
        if let (Verdict::Begin | Verdict::CatchUp, Some(row)) = (verdict, &known)
            && row.cursor.log_id != log.log_id
        {
            store::put_past_log(tx, agent, &row.cursor.log_id).await?;
        }
        match (verdict, known) {
            (Verdict::Begin, _) => {
                // Also in its first log: a key that an admin put here may have work already, older than this hello.
                self.host_gone(tx, agent, "new log").await?;
                Ok(begin(Hold::None, "", 0))
            }
            // What this database doesn't know may still be in the agent's hands: nothing open is ended here.
            (Verdict::CatchUp, _) => {
                let row = begin(Hold::CatchingUp, "its log is new to this database", log.head);
                Ok(LogRow { behind_head: Some(log.head), behind_since: Some(now), ..row })
            }
            (Verdict::SetAside(reason), Some(mut row)) => {
                tracing::warn!(%agent, reason, "the host is set aside");
                self.host_gone(tx, agent, reason).await?;
                note_set_aside(tx, agent, reason).await?;
                row.cursor.hold = Hold::SetAside;
                row.hold_reason = (*reason).to_owned();
                Ok(row)
            }
            (Verdict::Continue, Some(mut row)) => {
                if log.head > row.cursor.seq && row.behind_head.is_none() {
                    (row.behind_head, row.behind_since) = (Some(log.head), Some(now));
                }
                Ok(row)
            }
            (_, Some(row)) => Ok(row),
            (_, None) => Err(Error::Internal("a verdict on a log that is not known".into())),
        }
    }

    /// An admin accepts a host that was set aside: it is told to begin a new log. Says whether it was set aside.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn accept_host(&self, tx: &mut Tx, agent: &AgentId) -> Result<bool> {
        let mut rows = store::lock_cursors(tx, std::slice::from_ref(agent)).await?;
        let Some(row) = rows.get_mut(agent).filter(|r| r.cursor.hold == Hold::SetAside) else {
            return Ok(false);
        };
        row.cursor.hold = Hold::Accepted;
        row.hold_reason = "accepted; it begins a new log with its next hello".into();
        store::put_cursors(tx, rows.values()).await?;
        self.wake().notify_one();
        Ok(true)
    }

    /// Why dispatch to these agents is held.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn standings(
        &self,
        agents: &[AgentId],
    ) -> Result<std::collections::HashMap<AgentId, Standings>> {
        let rows = store::cursors(self.store(), agents).await?;
        let view = |r: LogRow| Standings {
            hold: r.cursor.hold.as_str(),
            reason: r.hold_reason,
            cursor: r.cursor.seq,
        };
        Ok(rows.into_iter().map(|(id, row)| (id, view(row))).collect())
    }
}

/// The host's own word took dispatch away from it.
pub(super) async fn note_set_aside(tx: &mut Tx, agent: &AgentId, reason: &str) -> Result<()> {
    let note = Note::of(Action::AgentSetAside, agent.as_str()).new(json!({ "reason": reason }));
    Ok(audit::note(tx, &Author::agent(agent), note).await?)
}
