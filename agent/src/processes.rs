//! What runs on this host, from /proc.

use std::collections::{HashMap, HashSet};
use std::{fs, io};

/// One process at the moment of the look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its id.
    pub(crate) pid: i32,
    /// Its parent's id.
    pub(crate) parent: i32,
    /// The process that leads its session.
    pub(crate) session: i32,
    /// Ended already, or in the middle of it: its files are closed before the system lets go of it.
    pub(crate) ending: bool,
}

/// `PF_EXITING` of the kernel's `include/linux/sched.h`, in the flags that proc(5) shows.
const PF_EXITING: u32 = 0x4;

/// Every process that may be seen.
///
/// # Errors
/// When /proc cannot be listed.
pub(crate) fn all() -> io::Result<Vec<Process>> {
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may have ended since the directory was read.
        processes.extend(look(pid));
    }
    Ok(processes)
}

/// One process; `None` when there is none.
fn look(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut process = parse(pid, &stat)?;
    // What is shown is its first thread.
    process.ending = process.ending && !other_threads(pid).any(|thread| runs(pid, thread));
    Some(process)
}

/// The threads of a process beside its first.
fn other_threads(pid: i32) -> impl Iterator<Item = i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let threads = tasks.filter_map(|task| task.file_name().to_str()?.parse().ok());
    threads.filter(move |thread| *thread != pid)
}

fn runs(pid: i32, thread: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/task/{thread}/stat"));
    stat.ok().and_then(|stat| parse(thread, &stat)).is_some_and(|thread| !thread.ending)
}

/// The environment with which a process was executed; empty when it may not be read. Linux shows none for a thread that
/// has ended, so the others are asked too.
pub(crate) fn environ(pid: i32) -> Vec<u8> {
    let read = |thread: i32| fs::read(format!("/proc/{pid}/task/{thread}/environ")).unwrap_or_default();
    std::iter::once(pid).chain(other_threads(pid)).map(read).find(|e| !e.is_empty()).unwrap_or_default()
}

/// Whether a process runs and is not about to end by itself.
pub(crate) fn is_running(pid: i32) -> bool {
    look(pid).is_some_and(|process| !process.ending)
}

/// `stat` of proc(5): the name in brackets may itself hold blanks and brackets.
fn parse(pid: i32, stat: &str) -> Option<Process> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let zombie = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    let _group = fields.next()?;
    let session = fields.next()?.parse().ok()?;
    let (_terminal, _foreground) = (fields.next()?, fields.next()?);
    let flags: u32 = fields.next()?.parse().ok()?;
    Some(Process { pid, parent, session, ending: zombie || flags & PF_EXITING != 0 })
}

/// All children, grandchildren and so on of a process.
///
/// # Errors
/// When /proc cannot be listed.
pub(crate) fn descendants(of: i32) -> io::Result<Vec<Process>> {
    Ok(below(&all()?, HashSet::from([of])))
}

/// Everything below the given processes, without these themselves.
pub(crate) fn below(processes: &[Process], of: HashSet<i32>) -> Vec<Process> {
    let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
    for process in processes {
        children.entry(process.parent).or_default().push(*process);
    }
    let mut seen = of.clone();
    let mut open: Vec<i32> = of.into_iter().collect();
    let mut found = Vec::new();
    while let Some(parent) = open.pop() {
        for child in children.get(&parent).into_iter().flatten() {
            if seen.insert(child.pid) {
                found.push(*child);
                open.push(child.pid);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_is_no_obstacle() {
        let stat = "12 (a) S 1) (b) Z 7 12 9 0 -1 4194304";
        assert_eq!(parse(12, stat), Some(Process { pid: 12, parent: 7, session: 9, ending: true }));
        assert_eq!(parse(12, ""), None);
        let exiting = stat.replace(" Z ", " R ").replace("4194304", "4194308");
        assert!(parse(12, &exiting).unwrap().ending);
        assert!(!parse(12, &stat.replace(" Z ", " R ")).unwrap().ending);
    }

    #[test]
    fn descendants_are_found_through_generations() {
        let process = |pid, parent| Process { pid, parent, session: 1, ending: false };
        let all = [process(2, 1), process(3, 2), process(4, 3), process(5, 1), process(6, 5)];
        let mut found: Vec<i32> = below(&all, HashSet::from([2])).iter().map(|p| p.pid).collect();
        found.sort_unstable();
        assert_eq!(found, [3, 4]);
    }

    #[test]
    fn a_process_whose_first_thread_has_ended_runs_until_its_last() {
        let text = "import ctypes, threading, time
threading.Thread(target=lambda: time.sleep(1000)).start()
ctypes.CDLL(None).pthread_exit(None)";
        let mut child =
            std::process::Command::new("python3").args(["-c", text]).env("MARK", "1").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let stat = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !parse(pid, &stat()).unwrap().ending {
            assert!(std::time::Instant::now() < deadline && child.try_wait().unwrap().is_none());
            std::thread::yield_now();
        }
        assert!(is_running(pid));
        assert!(environ(pid).split(|byte| *byte == 0).any(|entry| entry == b"MARK=1"));
        child.kill().unwrap();
        while is_running(pid) {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
        assert!(environ(pid).is_empty());
        child.wait().unwrap();
    }

    #[test]
    fn this_process_is_seen() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(all().unwrap().iter().any(|process| process.pid == own && !process.ending));
    }
}
