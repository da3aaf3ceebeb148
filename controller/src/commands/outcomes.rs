//! What commands store of their outcomes, inside intake's transaction.

use async_trait::async_trait;
use signet_common::TaskId;
use signet_common::messages::{Outcome, Stream};
use signet_common::time::Micros;

use super::store::{self, NewResult, Piece};
use crate::dispatch::{Happened, Outcomes, What};
use crate::error::Result;
use crate::store::Tx;

/// Stores results and output of commands.
#[derive(Debug, Clone, Copy)]
pub struct CommandOutcomes;

#[async_trait]
impl Outcomes for CommandOutcomes {
    async fn store(&self, tx: &mut Tx, happened: &[Happened]) -> Result<()> {
        let mut results = Vec::new();
        let mut pieces = Vec::new();
        for one in happened {
            let mut piece = |stream, offset, data| {
                pieces.push(Piece {
                    task_id: &one.task_id,
                    hostname: &one.hostname,
                    stream,
                    offset,
                    data,
                    live_seq: one.live_seq,
                });
            };
            match &one.what {
                What::Output { stream, offset, data } => piece(*stream, *offset, data.as_slice()),
                What::Result(result) => {
                    for (stream, data) in [(Stream::Stdout, &result.stdout), (Stream::Stderr, &result.stderr)]
                    {
                        if !data.is_empty() {
                            piece(stream, 0, data.as_slice());
                        }
                    }
                    count(result.outcome);
                    results.push(NewResult { task_id: &one.task_id, hostname: &one.hostname, result });
                }
                // The delivery says it all.
                What::Refused(_) | What::Ended => {}
            }
        }
        store::put_results(tx, &results).await?;
        Ok(store::put_output(tx, &pieces, Micros::now()).await?)
    }

    async fn forget(&self, tx: &mut Tx, tasks: &[TaskId]) -> Result<()> {
        crate::approvals::forget(tx, tasks).await?;
        Ok(store::delete(tx, tasks).await?)
    }
}

/// A transaction that is tried again counts its ends twice: rare, and no figure to keep books by.
fn count(outcome: Outcome) {
    let outcome = match outcome {
        Outcome::Succeeded => "succeeded",
        Outcome::Failed => "failed",
        Outcome::TimedOut => "timed_out",
        Outcome::Cancelled => "cancelled",
        Outcome::Interrupted => "interrupted",
        Outcome::Expired => "expired",
    };
    metrics::counter!("signet_results_total", "outcome" => outcome).increment(1);
}
