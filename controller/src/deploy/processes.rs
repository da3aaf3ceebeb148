//! Ends what a run left: every process that has the run's mark in its environment, wherever it went.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::limits::JOB_KILL_MILLISECONDS;

/// The variable that a run's processes have.
pub(super) const MARK: &str = "SIGNET_JOB_DIR";

/// Ends all processes with this mark, and waits until they are gone.
pub(super) async fn end_all(mark: String) {
    if let Err(error) = tokio::task::spawn_blocking(move || end(&mark)).await {
        tracing::error!(%error, "processes of a job could not be ended");
    }
}

/// The same, in this thread.
pub(super) fn end(mark: &str) {
    let until = Instant::now() + Duration::from_millis(JOB_KILL_MILLISECONDS);
    let wanted = format!("{MARK}={mark}");
    loop {
        let left = marked(wanted.as_bytes());
        if left.is_empty() {
            return;
        }
        for pid in left {
            if let Err(error) = kill(pid, Signal::SIGKILL) {
                tracing::trace!(%error, %pid, "a process of a job was gone already");
            }
        }
        if Instant::now() > until {
            tracing::error!("processes of a job could not be ended");
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn marked(wanted: &[u8]) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let has = |pid: &i32| {
        let environment = std::fs::read(Path::new("/proc").join(pid.to_string()).join("environ"));
        environment.is_ok_and(|text| text.split(|b| *b == 0).any(|one| one == wanted))
    };
    pids.filter(has).map(Pid::from_raw).collect()
}
