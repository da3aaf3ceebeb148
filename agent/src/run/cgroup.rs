//! A cgroup per command, below the agent's own (cgroup v2).
//!
//! Only membership and `cgroup.kill` are used and no resource controller, so the agent itself may stay where it is.

use std::path::{Path, PathBuf};
use std::{fs, io};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signet_common::Jti;

use super::launcher;

/// Begins the name of the cgroup that holds an agent's commands.
const PREFIX: &str = "signet-";

/// The cgroup that holds a cgroup for each command of one agent.
#[derive(Debug)]
pub(crate) struct Jobs {
    directory: PathBuf,
}

impl Jobs {
    /// Makes it below the agent's own cgroup. `scope` tells agents in the same cgroup apart; `program` is the launchers'.
    ///
    /// # Errors
    /// Why cgroups cannot be used here.
    pub(crate) fn make(scope: &str, program: &Path) -> io::Result<Self> {
        let directory = own_directory()?.join(format!("{PREFIX}{scope}"));
        make_directory(&directory)?;
        let jobs = Self { directory };
        jobs.probe(scope, program)?;
        Ok(jobs)
    }

    /// The cgroups of an agent that ran elsewhere, as it wrote them down.
    pub(crate) fn recorded(directory: &str) -> Option<Self> {
        let directory = PathBuf::from(directory);
        let name = directory.file_name()?.to_str()?;
        (name.starts_with(PREFIX) && directory.is_dir()).then_some(Self { directory })
    }

    /// Where it is.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes the cgroup of one command.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn job(&self, jti: &Jti) -> io::Result<Job> {
        let job = Job { directory: self.directory.join(jti.as_str()) };
        make_directory(&job.directory)?;
        Ok(job)
    }

    /// Every command that has a cgroup.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn all(&self) -> io::Result<Vec<Job>> {
        let directories = children(&self.directory)?;
        Ok(directories.into_iter().map(|directory| Job { directory }).collect())
    }

    /// Tries it with a process: rights and mount options are too many to reason about.
    fn probe(&self, scope: &str, program: &Path) -> io::Result<()> {
        let job = Job { directory: self.directory.join("probe") };
        make_directory(&job.directory)?;
        fs::metadata(job.directory.join("cgroup.kill"))?;
        let (mut child, socket) = launcher::spawn(program, scope)?;
        let joined = fs::write(job.directory.join("cgroup.procs"), child.id().to_string());
        // It waits for work; without any it ends.
        drop(socket);
        child.wait()?;
        joined?;
        job.remove()
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        // Fails, as it should, while a command is in it.
        fs::remove_dir(&self.directory).ok();
    }
}

/// The cgroup of one command.
#[derive(Debug)]
pub(crate) struct Job {
    directory: PathBuf,
}

impl Job {
    /// Its directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether a process is in it or below it.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn is_populated(&self) -> io::Result<bool> {
        match fs::read_to_string(self.directory.join("cgroup.events")) {
            Ok(events) => Ok(!events.lines().any(|line| line == "populated 0")),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The processes in it and below it.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn pids(&self) -> io::Result<Vec<i32>> {
        let mut pids = Vec::new();
        let mut open = vec![self.directory.clone()];
        while let Some(directory) = open.pop() {
            match fs::read_to_string(directory.join("cgroup.procs")) {
                Ok(procs) => pids.extend(procs.lines().filter_map(|line| line.parse::<i32>().ok())),
                // A threaded cgroup names its processes in its parent.
                Err(error) if is_gone(&error) || error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => {}
                Err(error) => return Err(error),
            }
            open.extend(children(&directory)?);
        }
        Ok(pids)
    }

    /// TERM to every process.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn term(&self) -> io::Result<()> {
        for pid in self.pids()? {
            let pid = Pid::from_raw(pid);
            // It may have ended by itself meanwhile. A stopped one must wake up to hear it.
            kill(pid, Signal::SIGTERM).and_then(|()| kill(pid, Signal::SIGCONT)).ok();
        }
        Ok(())
    }

    /// KILL to every process, also to those that are just being forked, whoever they belong to.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn kill(&self) -> io::Result<()> {
        match fs::write(self.directory.join("cgroup.kill"), "1") {
            Err(error) if is_gone(&error) => Ok(()),
            other => other,
        }
    }

    /// Removes it and what the command made below it. Nothing may be running in it.
    ///
    /// # Errors
    /// The system's; above all "busy" while a process is still vanishing.
    pub(crate) fn remove(&self) -> io::Result<()> {
        remove(&self.directory)
    }
}

fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir(directory) {
        Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => {}
        Err(error) if is_gone(&error) => return Ok(()),
        other => return other,
    }
    // Busy: the command may have made cgroups of its own.
    for child in children(directory)? {
        remove(&child)?;
    }
    fs::remove_dir(directory)
}

fn is_gone(error: &io::Error) -> bool {
    // ENODEV: the cgroup was removed between opening and reading.
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ENODEV as i32)
}

fn children(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        other => other?,
    };
    let mut children = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            children.push(entry.path());
        }
    }
    Ok(children)
}

fn make_directory(directory: &Path) -> io::Result<()> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// The directory of the cgroup that this process is in.
fn own_directory() -> io::Result<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    locate(&own, &mounts).ok_or_else(|| io::Error::other("no cgroup v2 is mounted that this process is in"))
}

/// Finds it in `/proc/self/cgroup` and `/proc/self/mountinfo`: the mount may show a part of the hierarchy only.
fn locate(own: &str, mounts: &str) -> Option<PathBuf> {
    let path = Path::new(own.lines().find_map(|line| line.strip_prefix("0::"))?);
    mounts.lines().find_map(|line| {
        let (fields, kind) = line.split_once(" - ")?;
        if kind.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let mut fields = fields.split(' ').skip(3);
        let (root, mount_point) = (fields.next()?, fields.next()?);
        let below = path.strip_prefix(root).ok()?;
        // A path that leads out of the own namespace begins with "..".
        below.is_relative().then(|| Path::new(mount_point).join(below)).filter(|_| !below.starts_with(".."))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 0:20 / /proc rw,nosuid shared:5 - proc proc rw
30 24 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
31 24 0:28 /docker/x /sys/fs/cgroup ro,nosuid - cgroup2 cgroup2 rw
32 24 0:28 / /sys/fs/cgroup/unified rw - cgroup2 none rw";

    #[test]
    fn the_own_cgroup_is_found_in_whichever_mount_shows_it() {
        let found = |own| locate(own, MOUNTS).map(|path| path.display().to_string());
        assert_eq!(found("3:cpu:/\n0::/docker/x/y\n").as_deref(), Some("/sys/fs/cgroup/y"));
        let service = "0::/system.slice/signet-agent.service\n";
        assert_eq!(
            found(service).as_deref(),
            Some("/sys/fs/cgroup/unified/system.slice/signet-agent.service")
        );
        assert_eq!(found("3:cpu:/\n"), None);
        assert_eq!(found("0::/../outside\n"), None);
    }

    #[test]
    fn only_an_agents_own_directory_is_taken_back() {
        let directory = tempfile::tempdir().unwrap();
        let ours = directory.path().join("signet-0123");
        fs::create_dir(&ours).unwrap();
        assert!(Jobs::recorded(ours.to_str().unwrap()).is_some());
        assert!(Jobs::recorded(directory.path().to_str().unwrap()).is_none());
        assert!(Jobs::recorded("/nowhere/signet-1").is_none());
    }
}
