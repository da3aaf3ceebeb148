//! Which releases there are, and which is current.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use signet_common::deploy::{CommitId, Deployed};
use signet_common::time::Micros;

use super::super::place::{self, GIT, MIRROR, STATE};
use super::super::plan::{Fault, shown};
use super::super::say::say;

const RELEASES: &str = "releases";
const SHARED: &str = "shared";
const CURRENT: &str = "current";
/// The link to be, until it is renamed.
const NEXT: &str = ".current.next";
/// What an admin may have prepared before the first deployment.
const OURS: [&str; 3] = [RELEASES, SHARED, NEXT];

/// What is noted of a complete release.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    /// Its commit.
    pub(super) commit: CommitId,
    /// Whether it has shown that it works.
    pub(super) good: bool,
    /// When that was last noted, in microseconds since 1970.
    at: i64,
}

/// With these a mirror would be configured, or filled, from elsewhere. Nothing here makes them.
const FROM_ELSEWHERE: [&str; 3] = ["commondir", "config.worktree", "objects/info/alternates"];

/// One path with releases.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) path: PathBuf,
    pub(super) mirror: PathBuf,
    pub(super) state: PathBuf,
    pub(super) shared: PathBuf,
    /// What of it was not there before.
    made: Vec<PathBuf>,
}

impl Layout {
    /// Looks whose the path is.
    ///
    /// # Errors
    /// It holds something else, which a working tree is also with `force`, or belongs to somebody else.
    pub(super) fn of(path: &Path, force: bool) -> Result<Self, Fault> {
        if path.join(GIT).symlink_metadata().is_ok() {
            // Its mirror would be one that came with a commit.
            return Err(Fault::new(format!(
                "{} is a git working tree and holds no releases: choose another path, or remove .git there",
                path.display()
            )));
        }
        let mirror = path.join(MIRROR);
        let mut layout = Self {
            path: path.to_owned(),
            state: mirror.join(STATE),
            shared: path.join(SHARED),
            mirror,
            made: Vec::new(),
        };
        if layout.mirror.symlink_metadata().is_ok() {
            place::own(&layout.mirror)?;
            layout.by_itself()?;
        } else {
            layout.foreign(force)?;
        }
        for directory in [layout.mirror.clone(), path.join(RELEASES)] {
            match fs::create_dir(&directory) {
                Ok(()) => layout.made.push(directory),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Fault::of(directory.display())(error)),
            }
        }
        place::own(&path.join(RELEASES))?;
        Ok(layout)
    }

    /// Removes what this deployment made, a mirror that came to nothing among it, or says why that remains.
    pub(super) fn unmake(&self) {
        if self.made.contains(&self.mirror)
            && let Err(error) = fs::remove_dir_all(&self.mirror)
        {
            say(&format!("{} remains: {error}", self.mirror.display()));
        }
        place::unmake(&self.made);
    }

    fn by_itself(&self) -> Result<(), Fault> {
        let mut parts = FROM_ELSEWHERE.iter().map(|part| self.mirror.join(part));
        match parts.find(|part| part.symlink_metadata().is_ok()) {
            Some(part) => Err(Fault::new(format!("{} is not of this mirror: remove it", part.display()))),
            None => Ok(()),
        }
    }

    fn foreign(&self, force: bool) -> Result<(), Fault> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(Fault::of(self.path.display()))? {
            let name = entry.map_err(Fault::of(self.path.display()))?.file_name();
            names.push(name.to_string_lossy().into_owned());
        }
        names.retain(|name| !OURS.contains(&name.as_str()));
        names.sort_unstable();
        if names.is_empty() || force {
            return Ok(());
        }
        let shown = shown(names.iter().map(String::as_str));
        Err(Fault::new(format!("{} holds no releases of ours, but {shown}", self.path.display())))
    }

    /// The release's directory.
    pub(super) fn release(&self, name: &str) -> PathBuf {
        self.path.join(RELEASES).join(name)
    }

    /// The release's index.
    pub(super) fn index(&self, name: &str) -> PathBuf {
        self.state.join(format!("{name}.index"))
    }

    fn record_file(&self, name: &str) -> PathBuf {
        self.state.join(format!("{name}.json"))
    }

    /// Which release is current.
    ///
    /// # Errors
    /// `current` is no symbolic link, or the system's.
    pub(super) fn current(&self) -> Result<Option<String>, Fault> {
        Ok(self.target()?.and_then(|target| Some(target.file_name()?.to_str()?.to_owned())))
    }

    fn target(&self) -> Result<Option<PathBuf>, Fault> {
        let link = self.path.join(CURRENT);
        match link.read_link() {
            Ok(target) => Ok(Some(target)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                Err(Fault::new(format!("{} is no symbolic link", link.display())))
            }
            Err(error) => Err(Fault::of(link.display())(error)),
        }
    }

    /// What is noted of a release; `None` when it is not complete.
    pub(super) fn record(&self, name: &str) -> Option<Record> {
        let record = serde_json::from_slice(&fs::read(self.record_file(name)).ok()?).ok()?;
        self.release(name).is_dir().then_some(record)
    }

    /// A directory for a new release.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn new_name(&self, commit: &CommitId) -> Result<String, Fault> {
        let time: String = Micros::now().rfc3339().chars().filter(char::is_ascii_digit).collect();
        let short = commit.as_str().get(..12).unwrap_or_default();
        for number in 1.. {
            let name = match number {
                1 => format!("{time}-{short}"),
                number => format!("{time}-{short}-{number}"),
            };
            match fs::create_dir(self.release(&name)) {
                Ok(()) => return Ok(name),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Fault::of(self.release(&name).display())(error)),
            }
        }
        Err(Fault::new("no name is left for a release"))
    }

    /// Notes that a release is complete. What it consists of is on the disk then.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn finish(&self, name: &str, commit: &CommitId) -> Result<(), Fault> {
        let sync = || nix::unistd::syncfs(fs::File::open(&self.path)?).map_err(io::Error::from);
        sync().map_err(Fault::of(self.path.display()))?;
        self.note(name, commit, false)
    }

    /// Notes that it has shown that it works.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn mark_good(&self, name: &str, commit: &CommitId) -> Result<(), Fault> {
        self.note(name, commit, true)
    }

    fn note(&self, name: &str, commit: &CommitId, good: bool) -> Result<(), Fault> {
        let record = Record { commit: commit.clone(), good, at: Micros::now().0 };
        let (file, next) = (self.record_file(name), self.state.join(format!("{name}.next")));
        let text = serde_json::to_vec(&record).map_err(Fault::of(file.display()))?;
        fs::write(&next, text).and_then(|()| fs::rename(&next, &file)).map_err(Fault::of(file.display()))
    }

    /// Names that look like a release's, oldest first.
    fn names(&self) -> Result<Vec<String>, Fault> {
        let directory = self.path.join(RELEASES);
        let mut names = Vec::new();
        for entry in fs::read_dir(&directory).map_err(Fault::of(directory.display()))? {
            let name = entry.map_err(Fault::of(directory.display()))?.file_name();
            names.extend(name.to_str().filter(|name| is_release(name)).map(str::to_owned));
        }
        // Those of the same second by what was noted.
        names.sort_by_cached_key(|name| (self.record(name).map(|record| record.at), name.clone()));
        Ok(names)
    }

    /// The newest complete release that passes.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn newest(&self, test: impl Fn(&Record) -> bool) -> Result<Option<String>, Fault> {
        let mut names = self.names()?;
        names.retain(|name| self.record(name).is_some_and(|record| test(&record)));
        Ok(names.pop())
    }

    /// Removes releases that an earlier deployment did not finish, and says what can't be removed.
    pub(super) fn remove_unfinished(&self, current: Option<&str>) {
        for name in self.names().unwrap_or_else(remains) {
            if self.record(&name).is_none() && current != Some(&name) {
                self.remove(&name);
            }
        }
    }

    /// Keeps the newest that work, the current one among them. Says what can't be removed: a deployment doesn't fail for
    /// that.
    pub(super) fn clean(&self, keep: u32, current: &str) {
        let mut left = keep.saturating_sub(1);
        for name in self.names().unwrap_or_else(remains).into_iter().rev().filter(|name| name != current) {
            if left > 0 && self.record(&name).is_some_and(|record| record.good) {
                left -= 1;
            } else {
                self.remove(&name);
            }
        }
    }

    /// Removes a release, or says why it remains.
    pub(super) fn remove(&self, name: &str) {
        self.try_remove(name).unwrap_or_else(remains);
    }

    /// The record goes first: without one it is not complete.
    fn try_remove(&self, name: &str) -> Result<(), Fault> {
        for file in [self.record_file(name), self.index(name)] {
            match fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Fault::of(file.display())(error));
                }
                _ => {}
            }
        }
        let directory = self.release(name);
        fs::remove_dir_all(&directory).map_err(Fault::of(directory.display()))
    }

    /// Makes a release current, in one step.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn switch(&self, name: &str) -> Result<(), Fault> {
        lead(&self.path, &Path::new(RELEASES).join(name))
    }

    /// How to go back from a release that is about to be current: to the one that is current when it works, else to the
    /// newest that does, else to whatever is current.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn undo(&self, new: &str) -> Result<Undo, Fault> {
        let current = self.current()?;
        let good = |name: &String| self.record(name).is_some_and(|record| record.good);
        let names = self.names()?.into_iter().rev().filter(|name| name != new);
        let before = current.clone().filter(|name| name != new && good(name));
        let back = before.or_else(|| names.into_iter().find(good)).or_else(|| current.clone());
        let commit = back.as_ref().and_then(|name| self.record(name)).map(|record| record.commit);
        let to = match back {
            Some(back) if Some(&back) != current.as_ref() => Some(Path::new(RELEASES).join(back)),
            // As somebody may have made it.
            _ => self.target()?,
        };
        Ok(Undo { path: self.path.clone(), to, commit })
    }
}

/// What can't be removed is in nobody's way.
fn remains<T: Default>(fault: Fault) -> T {
    say(&format!("old releases can't be removed: {fault}"));
    T::default()
}

fn lead(path: &Path, target: &Path) -> Result<(), Fault> {
    let (link, next) = (path.join(CURRENT), path.join(NEXT));
    let lead = || {
        match fs::remove_file(&next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        symlink(target, &next)?;
        fs::rename(&next, &link)
    };
    lead().map_err(Fault::of(link.display()))
}

/// `20260102030405-0123456789ab`, perhaps with a number.
fn is_release(name: &str) -> bool {
    let mut parts = name.split('-');
    let (time, short) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let number = parts.next().is_none_or(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    time.len() == 14
        && time.bytes().all(|b| b.is_ascii_digit())
        && short.len() == 12
        && short.bytes().all(|b| b.is_ascii_hexdigit())
        && number
        && parts.next().is_none()
}

/// How to go back when a new release does not work.
#[derive(Debug)]
pub(in super::super) struct Undo {
    path: PathBuf,
    /// Where the link led.
    to: Option<PathBuf>,
    commit: Option<CommitId>,
}

impl Undo {
    /// Makes the release before current again, or none when there was none, and notes that in `deployed`.
    ///
    /// # Errors
    /// The system's; then what is current stays noted.
    pub(in super::super) fn switch_back(self, deployed: &mut Deployed) -> Result<(), Fault> {
        match &self.to {
            Some(target) => lead(&self.path, target)?,
            None => fs::remove_file(self.path.join(CURRENT)).map_err(Fault::of(self.path.display()))?,
        }
        let name =
            self.to.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        deployed.changed = self.commit != deployed.before;
        deployed.commit = self.commit;
        (deployed.release, deployed.rolled_back_to) = (name.clone(), name);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_looks_like_a_release_is_ever_removed() {
        for good in ["20260102030405-0123456789ab", "20260102030405-0123456789ab-2"] {
            assert!(is_release(good), "{good}");
        }
        for bad in [
            "",
            "20260102030405",
            "backup",
            "20260102030405-0123456789ab-",
            "2026-x",
            "..",
            "20260102030405-0123456789ab-2-3",
            "20260102030405-0123456789abc",
        ] {
            assert!(!is_release(bad), "{bad}");
        }
    }
}
