//! One deployment under way, and what is told of it at its end.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use signet_common::deploy::{CommitId, Deploy, Deployed};
use signet_common::fault::{self, DeployPoint};

use super::git::Git;
use super::place;
use super::plan::{Fault, Report};
use super::releases::layout::Undo;
use super::say::complain;
use crate::policy::DeployRoots;

/// What is told at the end, however it comes.
#[derive(Debug)]
pub(super) struct Told {
    /// None: nothing is told.
    pub(super) file: Option<File>,
    /// Where things stand.
    pub(super) deployed: Deployed,
    /// What a release that has not shown that it works took the place of.
    pub(super) undo: Option<Undo>,
}

impl Told {
    /// Leaves no report: then nothing is concluded from the end.
    pub(super) fn silence(&mut self) {
        self.file = None;
    }

    /// Switches back what was switched and has not shown that it works, and tells so. Whoever holds this has all of it:
    /// nobody sees it half done.
    ///
    /// # Errors
    /// The system's; then what was switched remains, and is told.
    pub(super) fn take_back(&mut self) -> Result<(), Fault> {
        self.undo.take().map_or(Ok(()), |undo| undo.switch_back(&mut self.deployed))
    }

    /// Writes it down, with what went wrong.
    pub(super) fn report(&mut self, fault: Option<&Fault>) {
        let report = Report { deploy: self.deployed.clone(), fault: fault.map(Fault::to_string) };
        let Some(file) = &mut self.file else { return };
        let write = |file: &mut File| -> io::Result<()> {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(&serde_json::to_vec(&report)?)
        };
        if let Err(error) = write(file) {
            complain(&Fault::of("the report can't be written")(error));
        }
    }
}

/// What is told, for as long as nothing takes time.
pub(super) fn lock(told: &Arc<Mutex<Told>>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One deployment under way.
pub(super) struct Job {
    /// What is asked for.
    pub(super) deploy: Deploy,
    /// The path, without symbolic links.
    pub(super) path: PathBuf,
    /// Which directories of the path it made, from the top.
    pub(super) made: Vec<PathBuf>,
    /// Below what it may lie.
    pub(super) roots: DeployRoots,
    /// As it is allowed for this deployment.
    pub(super) git: Git,
    pub(super) told: Arc<Mutex<Told>>,
}

impl Job {
    /// What the end will tell. Not to be held while something takes time.
    pub(super) fn told(&self) -> MutexGuard<'_, Told> {
        lock(&self.told)
    }

    /// Makes the path, if need be, and demands that it is what it was found to be.
    ///
    /// # Errors
    /// It is not, or the system's.
    pub(super) fn make_place(&mut self) -> Result<(), Fault> {
        fault::hit(DeployPoint::Resolved);
        place::make(&self.path, &mut self.made)?;
        if place::resolve(self.deploy.path.as_str().as_ref(), &self.roots)? == self.path {
            return Ok(());
        }
        Err(Fault::new(format!("somebody changed where {} leads", self.deploy.path)))
    }

    /// The commit that is to be deployed.
    ///
    /// # Errors
    /// The message has none.
    pub(super) fn commit(&self) -> Result<CommitId, Fault> {
        self.deploy.commit.clone().ok_or_else(|| Fault::new("no commit is given"))
    }
}
