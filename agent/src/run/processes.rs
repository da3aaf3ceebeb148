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
    /// Already ended, and only waits for its parent.
    pub(crate) zombie: bool,
}

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
        if let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) {
            processes.extend(parse(pid, &stat));
        }
    }
    Ok(processes)
}

/// `stat` of proc(5): the name in brackets may itself hold blanks and brackets.
fn parse(pid: i32, stat: &str) -> Option<Process> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let zombie = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    let _group = fields.next()?;
    let session = fields.next()?.parse().ok()?;
    Some(Process { pid, parent, session, zombie })
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
        assert_eq!(parse(12, stat), Some(Process { pid: 12, parent: 7, session: 9, zombie: true }));
        assert_eq!(parse(12, ""), None);
    }

    #[test]
    fn descendants_are_found_through_generations() {
        let process = |pid, parent| Process { pid, parent, session: 1, zombie: false };
        let all = [process(2, 1), process(3, 2), process(4, 3), process(5, 1), process(6, 5)];
        let mut found: Vec<i32> = below(&all, HashSet::from([2])).iter().map(|p| p.pid).collect();
        found.sort_unstable();
        assert_eq!(found, [3, 4]);
    }

    #[test]
    fn this_process_is_seen() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(all().unwrap().iter().any(|process| process.pid == own && !process.zombie));
    }
}
