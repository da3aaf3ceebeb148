//! Batches: the next one goes when each target of the last is final, or its host has been away for too long, and the
//! pause after it is over. Pauses stand in the database: whoever sweeps then lets the next batch go.

use signet_common::TaskId;
use signet_common::time::Micros;

use super::model::Happening;
use super::rolling::{Between, Brake};
use super::service::Dispatch;
use super::store::{self, Stored};
use super::{Happened, What};
use crate::error::{Error, Result};
use crate::limits::DEADLINE_GRACE_SECONDS;
use crate::store::Tx;

/// What to do about a task's next batch.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Next {
    /// Targets of the released ones are still at work.
    Wait,
    /// Let the next one go, after the pause.
    Release,
    /// The rest ends here.
    Stop(Brake),
}

/// Decides from the numbers: `working` targets of released batches that are open and whose hosts are there, and what
/// speaks against going on.
fn next(working: usize, brake: Option<Brake>) -> Next {
    match brake {
        Some(brake) => Next::Stop(brake),
        None if working > 0 => Next::Wait,
        None => Next::Release,
    }
}

impl Dispatch {
    /// Whether a task's next batch or its pause is to begin, or what is not released to end. Only reads: without the
    /// task's lock it tells for whom to take it.
    pub(super) async fn is_due(
        &self,
        tx: &mut Tx,
        task: &TaskId,
        dispatch: &store::Dispatch,
        now: Micros,
    ) -> Result<bool> {
        let (next, _) = self.look(tx, task, dispatch, dispatch.released_batch, now).await?;
        Ok(match next {
            Next::Wait => false,
            Next::Release => dispatch.next_at.is_none_or(|at| at <= now.0),
            Next::Stop(_) => true,
        })
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
        let mut canaries = Vec::new();
        if dispatch.canary > 0 {
            canaries = store::canaries_failed(tx, task).await?;
            let first = away.iter().filter(|d| d.batch == store::FIRST_BATCH);
            canaries.extend(first.map(|d| d.hostname.to_string()));
        }
        let failures = store::count_failures(tx, task, released).await? + away.len() as u64;
        let budget = dispatch.max_failures.map(i64::unsigned_abs);
        let brake = Brake::of(canaries, failures, budget);
        Ok((next(current.len() - away.len(), brake), later))
    }

    /// Releases a task's next batch if it is time, begins the pause before it, or ends what is not released. The caller
    /// holds the task's lock. Says whether it changed anything: then the reconciler is to be woken after the commit.
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
        let (mut released, mut next_at) = (dispatch.released_batch, dispatch.next_at);
        while released < dispatch.last_batch {
            let (next, later) = self.look(tx, task, dispatch, released, now).await?;
            match next {
                Next::Wait => break,
                Next::Stop(brake) => {
                    self.end_unreleased(tx, task, dispatch, later, brake, now).await?;
                    return Ok(true);
                }
                // Before nothing there is no pause.
                Next::Release if dispatch.pause > 0 && next_at.is_none() && !later.is_empty() => {
                    store::set_next(tx, task, now.plus_seconds(dispatch.pause)).await?;
                    let pause = Between::Pause(dispatch.pause.unsigned_abs());
                    self.say(tx, task, dispatch, &pause).await?;
                    return Ok(true);
                }
                Next::Release if next_at.is_some_and(|at| at > now.0) && !later.is_empty() => break,
                Next::Release => {
                    released += 1;
                    next_at = None;
                    store::set_released(tx, task, released).await?;
                    // A batch of servers without agents is over at once.
                    if later.iter().any(|d| d.batch == released) {
                        break;
                    }
                }
            }
        }
        Ok(released > dispatch.released_batch)
    }

    /// Ends what the canary or the failure budget no longer lets go.
    async fn end_unreleased(
        &self,
        tx: &mut Tx,
        task: &TaskId,
        dispatch: &store::Dispatch,
        mut unreleased: Vec<Stored>,
        brake: Brake,
        now: Micros,
    ) -> Result<()> {
        let why = brake.as_str();
        unreleased.retain_mut(|d| d.apply(&Happening::HeldBack(why), now, dispatch.live_seq));
        store::update_deliveries(tx, &unreleased).await?;
        store::set_released(tx, task, dispatch.last_batch).await?;
        let left = unreleased.len();
        let ended = unreleased.into_iter().map(|d| Happened {
            task_id: d.task_id,
            hostname: d.hostname,
            live_seq: d.live_seq,
            what: What::Ended,
        });
        let locked = std::iter::once((task.clone(), dispatch.clone())).collect();
        self.tell(tx, &locked, ended.collect()).await?;
        if left == 0 {
            return Ok(());
        }
        self.say(tx, task, dispatch, &Between::Stopped { by: brake, left }).await
    }

    /// Tells the slice what happens between two batches.
    async fn say(
        &self,
        tx: &mut Tx,
        task: &TaskId,
        dispatch: &store::Dispatch,
        what: &Between,
    ) -> Result<()> {
        self.outcomes(dispatch.kind.parse().map_err(Error::Internal)?)?.between(tx, task, what).await
    }

    /// Which of these wait for a host that has been offline for `timeout` + 2 minutes.
    async fn away<'d>(
        &self,
        tx: &mut Tx,
        open: &'d [Stored],
        timeout: i64,
        now: Micros,
    ) -> Result<Vec<&'d Stored>> {
        let agents: Vec<_> = open.iter().filter_map(|d| d.agent_id.clone()).collect();
        let since = now.plus_seconds(-(timeout + DEADLINE_GRACE_SECONDS));
        let known = self.hosts().reachable(tx, &agents).await?;
        let gone = |d: &&Stored| {
            let agent = d.agent_id.as_ref().and_then(|id| known.get(id));
            agent.is_none_or(|a| a.last_heartbeat.is_none_or(|at| at < since))
        };
        Ok(open.iter().filter(gone).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brake_comes_before_the_wait() {
        let spent = Brake::MaxFailures { failed: 1, budget: 0 };
        assert_eq!(next(1, None), Next::Wait);
        assert_eq!(next(1, Some(spent.clone())), Next::Stop(spent));
        assert_eq!(next(0, None), Next::Release);
    }
}
