//! Where a path really leads, whether that is allowed, and who is at work there.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{Uid, User, geteuid};
use signet_common::deploy::Deploy;
use signet_common::time::Micros;

use super::plan::Fault;
use crate::policy::{DeployRoots, follow};

/// The driver's own files, inside the repository's directory.
pub(super) const STATE: &str = "signet";
/// Who holds the lock, for whoever finds it taken.
const HOLDER: &str = "holder";

/// The path without symbolic links; its end may be missing.
///
/// # Errors
/// A link that leads nowhere, a directory that can't be looked into, or a way out of the deploy roots.
pub(super) fn resolve(path: &Path, roots: &DeployRoots) -> Result<PathBuf, Fault> {
    let resolved = follow(path).map_err(Fault::of(format!("{} can't be followed", path.display())))?;
    if roots.resolved().hold(&resolved) {
        return Ok(resolved);
    }
    let leads = match resolved == path {
        true => "which".to_owned(),
        false => format!("which leads to {} and so", resolved.display()),
    };
    Err(Fault::new(format!("{}, {leads} is below none of this host's deploy roots", path.display())))
}

/// Refuses what belongs to somebody else: their git configuration would run programs as this user.
///
/// # Errors
/// A sentence that names the owner.
pub(super) fn own(path: &Path) -> Result<(), Fault> {
    let there = path.symlink_metadata().map_err(Fault::of(path.display()))?;
    if there.file_type().is_symlink() {
        return Err(Fault::new(format!("{} is a symbolic link", path.display())));
    }
    let (owner, me) = (Uid::from_raw(there.uid()), geteuid());
    if owner == me {
        return Ok(());
    }
    Err(Fault::new(format!(
        "{} belongs to {}, and this deploys as {}",
        path.display(),
        name(owner),
        name(me)
    )))
}

fn name(uid: Uid) -> String {
    User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

/// A directory that is locked for as long as this lives, and never longer than the driver does.
#[derive(Debug)]
pub(super) struct Locked {
    /// The directory, without symbolic links.
    pub(super) path: PathBuf,
    _lock: Flock<File>,
}

impl Locked {
    /// Locks a directory, which is created if need be.
    ///
    /// # Errors
    /// Another deployment is at work there, by its own words in `repository`; or the system's.
    pub(super) fn take(path: PathBuf, repository: &str) -> Result<Self, Fault> {
        fs::create_dir_all(&path).map_err(Fault::of(format!("{} can't be created", path.display())))?;
        let file = File::open(&path).map_err(Fault::of(path.display()))?;
        if !file.metadata().map_err(Fault::of(path.display()))?.is_dir() {
            return Err(Fault::new(format!("{} is no directory", path.display())));
        }
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self { path, _lock: lock }),
            Err((_, Errno::EWOULDBLOCK)) => {
                let holder = fs::read_to_string(path.join(repository).join(STATE).join(HOLDER));
                let holder = holder.unwrap_or_else(|_| "another deployment".to_owned());
                let shown: String = holder.trim().chars().take(200).collect();
                Err(Fault::new(format!("{} is locked by {shown}", path.display())))
            }
            Err((_, error)) => Err(Fault::new(format!("{} can't be locked: {error}", path.display()))),
        }
    }
}

/// Says in `state` who is at work.
///
/// # Errors
/// The system's.
pub(super) fn sign(state: &Path, deploy: &Deploy) -> Result<(), Fault> {
    let since = Micros::now().rfc3339();
    let holder = format!("job {} (message {}) since {since}\n", deploy.task_id, deploy.jti);
    fs::write(state.join(HOLDER), holder).map_err(Fault::of(state.display()))
}

/// Removes locks that git left when it was killed. Only for repositories in which nobody else can be at work.
///
/// # Errors
/// The system's.
pub(super) fn unlock_git(repository: &Path) -> Result<(), Fault> {
    remove_locks(repository).map_err(Fault::of(repository.display()))?;
    let mut directories = vec![repository.join("refs")];
    while let Some(directory) = directories.pop() {
        directories.extend(remove_locks(&directory).map_err(Fault::of(directory.display()))?);
    }
    Ok(())
}

/// Gives the directories in which there may be more.
fn remove_locks(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut below = Vec::new();
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(below),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            below.push(entry.path());
        } else if entry.path().extension().is_some_and(|ending| ending == "lock") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(below)
}
