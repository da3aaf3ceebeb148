//! Applying one happening to many deliveries under their dispatches' locks: states, outcomes, batches.

use std::collections::{BTreeSet, HashMap};

use signet_common::TaskId;
use signet_common::time::Micros;

use super::model::Happening;
use super::service::Dispatch;
use super::store::{self, Stored};
use super::{Happened, Kind, What};
use crate::error::{Error, Result};
use crate::store::Tx;

impl Dispatch {
    /// Applies what happened to each of these, stores what changed and tells the slices which ended. Says whether that let
    /// another batch go.
    pub(super) async fn apply_locked<'h>(
        &self,
        tx: &mut Tx,
        locked: &HashMap<TaskId, store::Dispatch>,
        mut deliveries: Vec<Stored>,
        happening: impl Fn(&Stored) -> Happening<'h> + Send,
        now: Micros,
    ) -> Result<bool> {
        deliveries.retain_mut(|d| {
            let live_seq = locked.get(&d.task_id).map_or(d.live_seq, |l| l.live_seq);
            d.apply(&happening(d), now, live_seq)
        });
        store::update_deliveries(tx, &deliveries).await?;
        let ended = deliveries.iter().filter(|d| d.delivery.state.is_final()).map(|d| Happened {
            task_id: d.task_id.clone(),
            hostname: d.hostname.clone(),
            live_seq: d.live_seq,
            what: What::Ended,
        });
        let ended: Vec<Happened> = ended.collect();
        let tasks = ended.iter().map(|h| h.task_id.clone()).collect();
        self.tell(tx, locked, ended).await?;
        self.settle(tx, locked, &tasks, now).await
    }

    /// Lets each slice store its part.
    pub(super) async fn tell(
        &self,
        tx: &mut Tx,
        locked: &HashMap<TaskId, store::Dispatch>,
        happened: Vec<Happened>,
    ) -> Result<()> {
        let mut by_kind: HashMap<Kind, Vec<Happened>> = HashMap::new();
        for one in happened {
            let Some(dispatch) = locked.get(&one.task_id) else { continue };
            by_kind.entry(dispatch.kind.parse().map_err(Error::Internal)?).or_default().push(one);
        }
        for (kind, some) in by_kind {
            self.outcomes(kind)?.store(tx, &some).await?;
        }
        Ok(())
    }

    /// The last step under the locks: releases next batches of the tasks of which deliveries ended, and settles them all. Says
    /// whether a batch was released.
    pub(super) async fn settle(
        &self,
        tx: &mut Tx,
        locked: &HashMap<TaskId, store::Dispatch>,
        ended: &BTreeSet<TaskId>,
        now: Micros,
    ) -> Result<bool> {
        let mut released = false;
        for task in ended {
            if let Some(dispatch) = locked.get(task)
                && dispatch.released_batch < dispatch.last_batch
            {
                released |= self.release(tx, task, dispatch, now).await?;
            }
        }
        store::settle(tx, locked).await?;
        Ok(released)
    }
}
