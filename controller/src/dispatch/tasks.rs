//! Where tasks stand, as it can be read by itself, in a transaction, or with more that is of the same moment.

use std::collections::{HashMap, HashSet};

use signet_common::TaskId;

use super::model::State;
use super::store::{self, Stored};
use crate::error::{Error, Result};
use crate::store::Read;

/// A target of a task as others see it: the delivery itself.
pub type Target = Stored;

/// How many targets of a task stand where.
pub type Tallies = HashMap<TaskId, Vec<(State, u64)>>;

/// A task's targets by hostname, after the one at this place.
///
/// # Errors
/// When the database fails.
pub async fn targets(read: impl Read, task: &TaskId, after: u64, limit: usize) -> Result<Vec<Target>> {
    Ok(store::by_task(read, task, after, limit).await?)
}

/// Where the targets of these tasks stand.
///
/// # Errors
/// When the database fails.
pub async fn tallies(read: impl Read, tasks: &[TaskId]) -> Result<Tallies> {
    let mut all = Tallies::new();
    for count in store::count_states(read, tasks).await? {
        let task = count.task_id.parse().map_err(|e| Error::Internal(format!("{e}")))?;
        let state = count.state.parse().map_err(Error::Internal)?;
        all.entry(task).or_default().push((state, count.number.unsigned_abs()));
    }
    Ok(all)
}

/// Which of these tasks await approval.
///
/// # Errors
/// When the database fails.
pub async fn held_among(read: impl Read, tasks: &[TaskId]) -> Result<HashSet<TaskId>> {
    Ok(store::held(read, tasks).await?)
}
