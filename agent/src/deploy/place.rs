//! Where a path really leads, whether that is allowed, and who is at work there.

use std::fs::{self, File};
use std::io;
use std::io::{Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{Gid, Group, Uid, User, geteuid};
use signet_common::deploy::{Deploy, Phase};
use signet_common::time::Micros;

use super::git::{Git, Killed};
use super::plan::Fault;
use super::say::say;
use crate::limits::{PREFLIGHT_LOCK_EVERY, PREFLIGHT_LOCK_MAX};
use crate::policy::{Denied, DeployRoots, follow};

/// The driver's own files, inside the repository's directory.
pub(super) const STATE: &str = "signet";
/// There while somebody is at work: git may have been killed when it is found.
const WORKING: &str = "working";
/// In a working tree there from the first step to the last: what is found changed later was not changed by hand. Empty until
/// files may have changed, and then it holds the commit on which they stood, or the first that was wanted.
pub(super) const BUSY: &str = "busy";
/// The repository of a working tree.
pub(super) const GIT: &str = ".git";
/// The bare repository of a path with releases.
pub(super) const MIRROR: &str = "repo.git";
/// Locked by who is at work, who writes there in words who that is. Nobody else may open it.
const LOCK: &str = "lock";
/// The bits that let a group and everybody write.
const WRITABLE: [u32; 2] = [0o020, 0o002];
/// In such a directory only the owner of a name changes it.
const STICKY: u32 = 0o1000;

/// The path without symbolic links; its end may be missing.
///
/// # Errors
/// A link that leads nowhere, a directory that can't be looked into, a way out of the deploy roots, a place where others
/// could put what they like, the user's home, git's configuration, a git repository's own directory, or the inside of
/// another deployment.
pub(super) fn resolve(path: &Path, roots: &DeployRoots) -> Result<PathBuf, Fault> {
    let leads = roots.lead(path).map_err(|Denied(why)| Fault::new(why))?;
    suits(&leads)?;
    Ok(leads)
}

/// Whether this user may trust what is found there.
fn suits(path: &Path) -> Result<(), Fault> {
    let user = User::from_uid(geteuid()).map_err(Fault::of("the user can't be looked up"))?;
    if user.is_some_and(|user| follow(&user.dir).unwrap_or(user.dir).starts_with(path)) {
        return Err(Fault::new(format!("{} holds the home of {}", path.display(), name(geteuid()))));
    }
    if path.ends_with(".config") || path.ancestors().any(|above| above.ends_with(".config/git")) {
        return Err(Fault::new(format!("{} is where git looks for a user's configuration", path.display())));
    }
    for above in path.ancestors() {
        let there = match above.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(Fault::of(above.display()))?,
        };
        trusted(above, &there)?;
        let has = |part: &str| above.join(part).symlink_metadata().is_ok();
        let is = |what: &str| Err(Fault::new(format!("{} is {what}", above.display())));
        if ["HEAD", "objects", "refs"].into_iter().all(has) {
            return is("the directory of a git repository");
        }
        // What lies in a tree came with its commit: nothing there may pass for what an earlier deployment left.
        if above != path && has(GIT) {
            return is("a git working tree, and nothing is deployed inside one");
        }
        if above != path && has(&format!("{MIRROR}/{STATE}")) {
            return is("a path with releases, and nothing is deployed inside one");
        }
    }
    Ok(())
}

/// Whether a deployment works at a path, or has.
pub(super) fn deployed_to(path: &Path) -> bool {
    [GIT, MIRROR].iter().any(|part| path.join(part).join(STATE).symlink_metadata().is_ok())
}

/// Whether only root and this user say what lies there.
fn trusted(directory: &Path, there: &fs::Metadata) -> Result<(), Fault> {
    let owner = Uid::from_raw(there.uid());
    if !owner.is_root() && owner != geteuid() {
        return Err(foreign(directory, owner));
    }
    if there.mode() & STICKY == 0 { only_writer(directory, there) } else { Ok(()) }
}

/// Refuses what others may write to: a group with nobody else in it, which many systems give to each user, is none.
fn only_writer(path: &Path, there: &fs::Metadata) -> Result<(), Fault> {
    let [group, everybody] = WRITABLE.map(|bit| there.mode() & bit != 0);
    let refuse = |who: &str| Err(Fault::new(format!("{} can be written to by {who}", path.display())));
    if everybody {
        return refuse("everybody");
    }
    if group && !is_private(Gid::from_raw(there.gid()), Uid::from_raw(there.uid())) {
        return refuse("its group");
    }
    Ok(())
}

/// Whether a group is the one user's own.
fn is_private(group: Gid, user: Uid) -> bool {
    let (Ok(Some(group)), Ok(Some(user))) = (Group::from_gid(group), User::from_uid(user)) else {
        return false;
    };
    user.gid == group.gid && user.name == group.name && group.mem.iter().all(|member| *member == user.name)
}

/// Refuses what belongs to somebody else: their git configuration would run programs as this user.
///
/// # Errors
/// A sentence that names the owner, or who else may write there.
pub(super) fn own(path: &Path) -> Result<(), Fault> {
    let there = path.symlink_metadata().map_err(Fault::of(path.display()))?;
    if there.file_type().is_symlink() {
        return Err(Fault::new(format!("{} is a symbolic link", path.display())));
    }
    let (owner, me) = (Uid::from_raw(there.uid()), geteuid());
    if owner == me { only_writer(path, &there) } else { Err(foreign(path, owner)) }
}

fn foreign(path: &Path, owner: Uid) -> Fault {
    let (owner, me) = (name(owner), name(geteuid()));
    Fault::new(format!("{} belongs to {owner}, and this deploys as {me}: deploy as {owner}", path.display()))
}

fn name(uid: Uid) -> String {
    User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

/// Makes the directory of a deployment, if need be, and notes in `made` what it makes, from the top. The path leads through no symbolic link. Where everybody may make
/// names somebody else may have been faster: so each part is looked at before anything is made in it.
///
/// # Errors
/// A part is something else or somebody else's, or the system's.
pub(super) fn make(path: &Path, made: &mut Vec<PathBuf>) -> Result<(), Fault> {
    let cannot = |error: io::Error| Fault::new(format!("{} can't be created: {error}", path.display()));
    let mut parts: Vec<&Path> = path.ancestors().collect();
    while let Some(part) = parts.pop() {
        if part.symlink_metadata().is_err() {
            match fs::create_dir(part) {
                Ok(()) => made.push(part.to_owned()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(cannot(error)),
            }
        }
        let there = part.symlink_metadata().map_err(cannot)?;
        if !there.is_dir() {
            return Err(cannot(io::ErrorKind::NotADirectory.into()));
        }
        trusted(part, &there)?;
    }
    Ok(())
}

/// Removes directories that this deployment made, given from the top, as far as they are still empty: nothing came of it.
pub(super) fn unmake(made: &[PathBuf]) {
    for directory in made.iter().rev() {
        // What holds something by now, perhaps another's, stays, and so does what is above it.
        if fs::remove_dir(directory).is_err() {
            return;
        }
    }
}

/// A path that is locked for as long as this lives, and never longer than the driver does.
#[derive(Debug)]
pub(super) struct Locked {
    lock: Flock<File>,
    working: PathBuf,
    killed: Killed,
}

impl Locked {
    /// Locks `path`, in which `state` is this user's own directory in the repository's; that is created if need be. The
    /// locks of a git that was killed at work here go. A preflight, which changes nothing that anybody sees, waits for its turn.
    ///
    /// # Errors
    /// Another deployment is at work there, by its own words; or the system's.
    pub(super) fn take(path: &Path, state: &Path, deploy: &Deploy, git: &Git) -> Result<Self, Fault> {
        fs::create_dir_all(state).map_err(Fault::of(state.display()))?;
        own(state)?;
        let file = state.join(LOCK);
        let open = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(&file);
        let lock = wait_for(path, &file, open.map_err(Fault::of(file.display()))?, patience(deploy))?;
        let working = state.join(WORKING);
        // Before there was a mark of its own, that somebody is at work was told by what is changed alone.
        if working.exists() || state.join(BUSY).exists() {
            unlock_git(state.parent().unwrap_or(state))?;
        }
        fs::write(&working, "").map_err(Fault::of(working.display()))?;
        let mut locked = Self { lock, working, killed: git.killed() };
        let since = Micros::now().rfc3339();
        let holder = format!("job {} (message {}) since {since}\n", deploy.task_id, deploy.jti);
        locked.say(&holder).map_err(Fault::of(file.display()))?;
        Ok(locked)
    }

    /// For whoever finds it locked.
    fn say(&mut self, holder: &str) -> io::Result<()> {
        self.lock.set_len(0)?;
        self.lock.rewind()?;
        self.lock.write_all(holder.as_bytes())
    }
}

/// How long a deployment waits for others at its path: so that there is time left for what it waits for.
fn patience(deploy: &Deploy) -> Duration {
    match deploy.phase {
        Phase::Preflight => PREFLIGHT_LOCK_MAX.min(Duration::from_secs(deploy.timeout.into()) / 2),
        Phase::Resolve | Phase::Deploy => Duration::ZERO,
    }
}

/// Locks the open `file` of a path, and says once for whom it waits.
fn wait_for(path: &Path, file: &Path, mut open: File, patience: Duration) -> Result<Flock<File>, Fault> {
    let began = Instant::now();
    let mut told = false;
    loop {
        open = match Flock::lock(open, FlockArg::LockExclusiveNonblock) {
            Ok(lock) if is_at(&lock, file) => return Ok(lock),
            // Who had it removed it with all that was there: what is there by now counts.
            Ok(_) => {
                open = fs::OpenOptions::new()
                    .read(true)
                    .write(true)
                    .custom_flags(nix::libc::O_NOFOLLOW)
                    .open(file)
                    .map_err(Fault::of(format!("what was at {} is gone", path.display())))?;
                continue;
            }
            Err((open, Errno::EWOULDBLOCK)) => open,
            Err((_, error)) => {
                return Err(Fault::new(format!("{} can't be locked: {error}", path.display())));
            }
        };
        let holder = fs::read_to_string(file).unwrap_or_default();
        let shown: String = holder.trim().chars().take(200).collect();
        let shown = if shown.is_empty() { "another deployment" } else { &shown };
        let locked = format!("{} is locked by {shown}", path.display());
        if began.elapsed() >= patience {
            return Err(Fault::new(locked));
        }
        if !told {
            say(&format!("{locked}; waiting for it"));
            told = true;
        }
        thread::sleep(PREFLIGHT_LOCK_EVERY);
    }
}

/// Whether this is the file that is there.
fn is_at(open: &File, file: &Path) -> bool {
    let there = file.symlink_metadata().map(|there| (there.dev(), there.ino()));
    let ours = open.metadata().map(|ours| (ours.dev(), ours.ino()));
    matches!((there, ours), (Ok(there), Ok(ours)) if there == ours)
}

impl Drop for Locked {
    fn drop(&mut self) {
        // What remains there is read only while it is locked, and written anew then.
        self.say("").ok();
        if !self.killed.load(Ordering::Relaxed) {
            // What remains costs the next one a look.
            fs::remove_file(&self.working).ok();
        }
    }
}

/// Removes locks that git left when it was killed. Only for repositories in which nobody else can be at work.
///
/// # Errors
/// The system's.
pub(super) fn unlock_git(repository: &Path) -> Result<(), Fault> {
    let mut repositories = vec![repository.to_owned()];
    while let Some(repository) = repositories.pop() {
        for part in ["", "objects", "objects/info", "objects/pack"].map(|part| repository.join(part)) {
            remove_locks(&part).map_err(Fault::of(part.display()))?;
        }
        let mut directories = vec![repository.join("refs")];
        while let Some(directory) = directories.pop() {
            directories.extend(remove_locks(&directory).map_err(Fault::of(directory.display()))?);
        }
        // Those of submodules, whose names may have slashes.
        let mut directories = vec![repository.join("modules")];
        while let Some(directory) = directories.pop() {
            if directory.join("HEAD").is_file() {
                repositories.push(directory);
            } else {
                directories.extend(remove_locks(&directory).map_err(Fault::of(directory.display()))?);
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_a_home_nor_what_holds_it_is_a_place() {
        let home = follow(&User::from_uid(geteuid()).unwrap().unwrap().dir).unwrap();
        let why = suits(&home).unwrap_err().to_string();
        assert!(why.contains("holds the home of"), "{why}");
        assert!(suits(home.parent().unwrap()).is_err());
    }

    #[test]
    fn what_is_locked_is_what_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let (path, file) = (directory.path(), directory.path().join(LOCK));
        let old = File::create(&file).unwrap();
        fs::remove_file(&file).unwrap();
        let new = File::create(&file).unwrap();
        let lock = wait_for(path, &file, old, Duration::ZERO).unwrap();
        assert_eq!(lock.metadata().unwrap().ino(), new.metadata().unwrap().ino());
        drop(lock);
        fs::remove_file(&file).unwrap();
        let why = wait_for(path, &file, new, Duration::ZERO).unwrap_err().to_string();
        assert!(why.contains("is gone"), "{why}");
    }
}
