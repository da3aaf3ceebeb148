//! What the kernel knows of a job: a task for each kind of its messages.

use signet_common::TaskId;
use signet_common::deploy::Phase;

use super::model::{parse_id, shown};
use crate::error::{Error, Result};

/// Which of a job's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// To find out the commit.
    Resolve,
    /// To have it on the hosts before any of them goes back to it.
    Preflight,
    /// To deploy it.
    Deploy,
}

impl Part {
    /// What the id of its task ends with.
    const fn suffix(self) -> &'static str {
        match self {
            Self::Resolve => "-resolve",
            Self::Preflight => "-preflight",
            Self::Deploy => "",
        }
    }

    /// What the hosts are asked for.
    pub(super) const fn phase(self) -> Phase {
        match self {
            Self::Resolve => Phase::Resolve,
            Self::Preflight => Phase::Preflight,
            Self::Deploy => Phase::Deploy,
        }
    }
}

/// The task of these messages.
pub(super) fn task(job: i64, part: Part) -> Result<TaskId> {
    format!("{}{}", shown(job), part.suffix()).parse().map_err(|_| Error::Internal("a job's task id".into()))
}

/// The job that a task belongs to.
pub(super) fn part(task: &TaskId) -> Option<(i64, Part)> {
    let of = |part: Part| Some((parse_id(task.as_str().strip_suffix(part.suffix())?)?, part));
    [Part::Resolve, Part::Preflight, Part::Deploy].into_iter().find_map(of)
}
