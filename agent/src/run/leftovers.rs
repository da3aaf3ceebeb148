//! What an earlier start of the agent may have left running, and how it is recognised.
//!
//! With cgroups: whatever is in the cgroup of this agent, or in the one that it wrote down when it ran elsewhere. Without:
//! launchers end their trees when the agent is gone, and carry the agent's scope in their arguments; and where a launcher
//! was killed together with the agent, every process still has its command's id in its environment.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::{fs, io, process};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signet_common::Jti;
use tokio::time::{Instant, sleep};

use super::LeftBehind;
use super::cgroup::{Job, Jobs};
use super::start::JTI_VARIABLE;
use crate::launch::MARKER;
use crate::limits::{KILL_GRACE, TREE_LOOK_EVERY};
use crate::processes::{self, Process, below};

/// One file for each command that runs without a cgroup, named by its id.
const RUNNING: &str = "running";
/// The cgroups in which this agent has ever kept commands, one a line.
const CGROUPS: &str = "cgroups";

/// Says, as long as it lives, that a command runs.
#[derive(Debug)]
pub(crate) struct Record {
    file: PathBuf,
}

impl Record {
    /// Writes it. Not synced: what a power cut forgets it also ends.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn write(data_dir: &Path, jti: &Jti) -> io::Result<Self> {
        let file = data_dir.join(RUNNING).join(jti.as_str());
        fs::File::create(&file)?;
        Ok(Self { file })
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.file) {
            tracing::warn!(file = %self.file.display(), %error, "the record of a running command remains");
        }
    }
}

/// What was there when the agent started.
#[derive(Debug)]
pub(crate) struct Leftovers {
    scope: String,
    running: PathBuf,
    commands: Vec<Jti>,
    /// Kept for their end: then empty ones are removed.
    elsewhere: Vec<Jobs>,
    jobs: Vec<Job>,
}

impl Leftovers {
    /// Looks, and writes down where this start keeps its commands.
    ///
    /// # Errors
    /// When the data directory cannot be used.
    pub(crate) fn find(data_dir: &Path, scope: &str, own: Option<&Jobs>) -> io::Result<Self> {
        let running = data_dir.join(RUNNING);
        fs::create_dir_all(&running)?;
        let mut commands = Vec::new();
        for entry in fs::read_dir(&running)? {
            commands.extend(entry?.file_name().to_str().and_then(|name| name.parse().ok()));
        }
        let recorded = match fs::read_to_string(data_dir.join(CGROUPS)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            other => other?,
        };
        let is_own = |line: &str| own.is_some_and(|own| own.directory() == Path::new(line));
        let elsewhere: Vec<Jobs> =
            recorded.lines().filter(|line| !is_own(line)).filter_map(Jobs::recorded).collect();
        let mut jobs = Vec::new();
        let mut lines = String::new();
        for place in elsewhere.iter().chain(own) {
            jobs.extend(place.all()?);
            lines.push_str(&format!("{}\n", place.directory().display()));
        }
        if lines != recorded {
            fs::write(data_dir.join(CGROUPS), lines)?;
        }
        Ok(Self { scope: scope.to_owned(), running, commands, elsewhere, jobs })
    }

    /// Kills all of it, and says how many processes that were, and how many the kernel does not let go of.
    ///
    /// # Errors
    /// When /proc or the cgroups cannot be read.
    pub(crate) async fn end(mut self) -> io::Result<LeftBehind> {
        let give_up = Instant::now() + KILL_GRACE;
        let mut killed = HashSet::new();
        let left = loop {
            self.end_jobs(&mut killed)?;
            let (tree, launchers) = self.marked()?;
            for process in &tree {
                if kill(Pid::from_raw(process.pid), Signal::SIGKILL).is_ok() {
                    killed.insert(process.pid);
                }
            }
            // Launchers end by themselves as soon as they have nothing left.
            if self.jobs.is_empty() && tree.is_empty() && launchers.is_empty() {
                break 0;
            }
            if Instant::now() >= give_up {
                let in_jobs: HashSet<i32> = self.jobs.iter().flat_map(Job::pids).flatten().collect();
                let left = tree.len() + launchers.len() + in_jobs.len();
                tracing::error!(left, "processes of an earlier start cannot be ended");
                break left as u64;
            }
            sleep(TREE_LOOK_EVERY).await;
        };
        for jti in &self.commands {
            match fs::remove_file(self.running.join(jti.as_str())) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.elsewhere.clear();
        Ok(LeftBehind { killed: killed.len() as u64, left })
    }

    fn end_jobs(&mut self, killed: &mut HashSet<i32>) -> io::Result<()> {
        let mut left = Vec::new();
        for job in self.jobs.drain(..) {
            if job.is_populated()? {
                killed.extend(job.pids()?);
                job.kill()?;
                left.push(job);
            } else if job.remove().is_err() {
                // Busy for a moment after the last process has gone.
                left.push(job);
            }
        }
        self.jobs = left;
        Ok(())
    }

    /// Processes that bear this agent's marks, and the launchers among them.
    fn marked(&self) -> io::Result<(Vec<Process>, HashSet<i32>)> {
        let all = processes::all()?;
        let own = i32::try_from(process::id()).unwrap_or_default();
        let is_launcher = |process: &&Process| process.parent != own && is_launcher(process.pid, &self.scope);
        let launchers: HashSet<i32> =
            all.iter().filter(|p| !p.ending).filter(is_launcher).map(|p| p.pid).collect();
        let marks: Vec<Vec<u8>> = self.commands.iter().map(mark).collect();
        let roots = all.iter().filter(|process| has_mark(process.pid, &marks)).map(|process| process.pid);
        let roots: HashSet<i32> = roots.chain(launchers.iter().copied()).collect();
        Ok((whole(&all, roots, &launchers), launchers))
    }
}

/// The processes of a command whose launcher is gone, as far as they can be recognised: by the command's session and by
/// its id in their environment.
pub(crate) fn of_command(jti: &Jti, session: Option<i32>) -> Vec<Process> {
    let all = processes::all().unwrap_or_default();
    let marks = [mark(jti)];
    let ours = |process: &&Process| session == Some(process.session) || has_mark(process.pid, &marks);
    let roots = all.iter().filter(ours).map(|process| process.pid).collect();
    whole(&all, roots, &HashSet::new())
}

/// The roots and everything below them that lives, without the excepted, this process and its own ancestors: an agent
/// may itself have been started by a command.
fn whole(all: &[Process], roots: HashSet<i32>, except: &HashSet<i32>) -> Vec<Process> {
    let mut spared = except.clone();
    let mut at = i32::try_from(process::id()).unwrap_or_default();
    while at > 0 && spared.insert(at) {
        at = all.iter().find(|process| process.pid == at).map_or(0, |process| process.parent);
    }
    let below = below(all, roots.clone());
    let mut whole: Vec<Process> =
        all.iter().filter(|process| roots.contains(&process.pid)).copied().collect();
    whole.extend(below);
    whole.retain(|process| !process.ending && !spared.contains(&process.pid));
    whole
}

fn mark(jti: &Jti) -> Vec<u8> {
    format!("{JTI_VARIABLE}={jti}").into_bytes()
}

fn has_mark(pid: i32, marks: &[Vec<u8>]) -> bool {
    // Unreadable ones belong to others, or have just ended.
    !marks.is_empty()
        && processes::environ(pid).split(|byte| *byte == 0).any(|entry| marks.iter().any(|m| m == entry))
}

fn is_launcher(pid: i32, scope: &str) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|arguments| {
        let mut arguments = arguments.split(|byte| *byte == 0).skip(1);
        arguments.next() == Some(MARKER.as_bytes())
            && arguments
                .next()
                .and_then(|tag| tag.strip_prefix(scope.as_bytes()))
                .is_some_and(|rest| rest.starts_with(b"/"))
    })
}
