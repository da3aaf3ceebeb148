//! Batches: the next one goes when each target of the last is final, or its host has been away for too long.

use signet_common::TaskId;
use signet_common::time::Micros;

use super::model::Happening;
use super::service::Dispatch;
use super::store::{self, Stored};
use super::{Happened, What};
use crate::error::Result;
use crate::limits::DEADLINE_GRACE_SECONDS;
use crate::store::Tx;

/// What to do about a task's next batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Targets of the released ones are still at work.
    Wait,
    /// Let the next one go.
    Release,
    /// Too many failures: the rest ends here.
    Spent,
}

/// Decides from the numbers: `working` targets of released batches that are open and whose hosts are there,
/// `failures` among the released (hosts that are away count), and the budget.
fn next(working: usize, failures: u64, max_failures: Option<i64>) -> Next {
    if max_failures.is_some_and(|max| failures > max.unsigned_abs()) {
        Next::Spent
    } else if working > 0 {
        Next::Wait
    } else {
        Next::Release
    }
}

impl Dispatch {
    /// Whether a task's next batch is to go, or what is not released to end. Only reads: without the task's lock it tells
    /// for whom to take it.
    pub(super) async fn is_due(
        &self,
        tx: &mut Tx,
        task: &TaskId,
        dispatch: &store::Dispatch,
        now: Micros,
    ) -> Result<bool> {
        Ok(self.look(tx, task, dispatch, dispatch.released_batch, now).await?.0 != Next::Wait)
    }

    /// What to do when the batches up to `released` may be sent, and what is open of those after them.
    async fn look(
        &self,
        tx: &mut Tx,
        task: &TaskId,
        dispatch: &store::Dispatch,
        released: i64,
        now: Micros,
    ) -> Result<(Next, Vec<Stored>)> {
        let open = store::open_of_task(tx, task).await?;
        let (current, later): (Vec<Stored>, Vec<Stored>) =
            open.into_iter().partition(|d| d.batch <= released);
        let away = self.away(tx, &current, dispatch.timeout, now).await?;
        let failures = store::count_failures(tx, task, released).await? + away as u64;
        Ok((next(current.len() - away, failures, dispatch.max_failures), later))
    }

    /// Releases a task's next batch if it is time, or ends what is not released. The caller holds the task's lock. Says
    /// whether it changed anything: then the reconciler is to be woken after the commit.
    pub(super) async fn release(
        &self,
        tx: &mut Tx,
        task: &TaskId,
        dispatch: &store::Dispatch,
        now: Micros,
    ) -> Result<bool> {
        if dispatch.is_held() {
            return Ok(false);
        }
        let mut released = dispatch.released_batch;
        while released < dispatch.last_batch {
            let (next, later) = self.look(tx, task, dispatch, released, now).await?;
            match next {
                Next::Wait => break,
                Next::Release => {
                    released += 1;
                    store::set_released(tx, task, released).await?;
                    // A batch of servers without agents is over at once.
                    if later.iter().any(|d| d.batch == released) {
                        break;
                    }
                }
                Next::Spent => {
                    self.end_unreleased(tx, task, dispatch, later, now).await?;
                    return Ok(true);
                }
            }
        }
        Ok(released > dispatch.released_batch)
    }

    /// Ends what the failure budget no longer lets go.
    async fn end_unreleased(
        &self,
        tx: &mut Tx,
        task: &TaskId,
        dispatch: &store::Dispatch,
        mut unreleased: Vec<Stored>,
        now: Micros,
    ) -> Result<()> {
        unreleased.retain_mut(|d| d.apply(&Happening::BudgetSpent, now, dispatch.live_seq));
        store::update_deliveries(tx, &unreleased).await?;
        store::set_released(tx, task, dispatch.last_batch).await?;
        let ended = unreleased.into_iter().map(|d| Happened {
            task_id: d.task_id,
            hostname: d.hostname,
            live_seq: d.live_seq,
            what: What::Ended,
        });
        let locked = std::iter::once((task.clone(), dispatch.clone())).collect();
        self.tell(tx, &locked, ended.collect()).await
    }

    /// How many of these wait for a host that has been offline for `timeout` + 2 minutes.
    async fn away(&self, tx: &mut Tx, open: &[Stored], timeout: i64, now: Micros) -> Result<usize> {
        let agents: Vec<_> = open.iter().filter_map(|d| d.agent_id.clone()).collect();
        let since = now.plus_seconds(-(timeout + DEADLINE_GRACE_SECONDS));
        let known = self.hosts().reachable(tx, &agents).await?;
        let gone = |d: &&Stored| {
            let agent = d.agent_id.as_ref().and_then(|id| known.get(id));
            agent.is_none_or(|a| a.last_heartbeat.is_none_or(|at| at < since))
        };
        Ok(open.iter().filter(gone).count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_comes_before_the_wait() {
        assert_eq!(next(1, 0, Some(0)), Next::Wait);
        assert_eq!(next(1, 1, Some(0)), Next::Spent);
        assert_eq!(next(0, 1, Some(1)), Next::Release);
        assert_eq!(next(0, 9, None), Next::Release);
    }
}
