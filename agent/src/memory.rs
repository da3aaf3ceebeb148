//! Memory that an agent at rest gives back.
//!
//! Most of what an agent holds is its own program: start, enrolment and commands touch nearly all of it, the time between
//! two heartbeats a tenth. Pages of a file count as the process's own as long as they are mapped, so the agent lets go of
//! them; what it needs again comes back from the page cache, and is read only where that was emptied meanwhile. The
//! allocator gives back what it keeps for later.
#![allow(unsafe_code, reason = "madvise and malloc_trim have no safe wrapper")]

use std::ffi::c_void;
use std::ptr::NonNull;
use std::{fs, io};

use nix::sys::mman::{MmapAdvise, madvise};

/// What the program is linked with: like its own file, mapped from the start to the end.
const LINKED: [&str; 4] = ["libc.so.", "libm.so.", "libgcc_s.so.", "ld-linux"];

/// Lets go of what is not needed now.
///
/// # Errors
/// When the kernel does not tell what is mapped, or does not obey.
pub(crate) fn give_back() -> io::Result<()> {
    #[cfg(target_env = "gnu")]
    // SAFETY: frees what is free already; may be called at any time by any thread.
    unsafe {
        nix::libc::malloc_trim(0);
    }
    let program = fs::read_link("/proc/self/exe")?;
    let maps = fs::read_to_string("/proc/self/smaps")?;
    for (start, length) in untouched(&maps, &program.to_string_lossy()) {
        let Some(start) = NonNull::new(std::ptr::with_exposed_provenance_mut::<c_void>(start)) else {
            continue;
        };
        // SAFETY: a private mapping of a file that never could be written and holds no page of its own, so that what comes
        // back is what is there now (madvise(2), MADV_DONTNEED). It is never unmapped as long as the program runs.
        unsafe { madvise(start, length, MmapAdvise::MADV_DONTNEED) }?;
    }
    Ok(())
}

/// Where the program's file and what it is linked with are mapped, never writable and without a private page, in memory or
/// swapped out: start and length in bytes, from `/proc/PID/smaps` (proc_pid_smaps(5)).
fn untouched(maps: &str, program: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut at = None;
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(first) = words.next() else { continue };
        if !first.ends_with(':') {
            let readable = matches!(words.next(), Some("r-xp" | "r--p"));
            // It ends with the file's name, which may have anything in it.
            let own = line.strip_suffix(program).is_some_and(|rest| rest.ends_with(' '));
            let linked =
                line.rsplit('/').next().is_some_and(|name| LINKED.iter().any(|l| name.starts_with(l)));
            at = range(first).filter(|_| readable && (own || linked));
        } else if matches!(first, "Anonymous:" | "Swap:") && words.next() != Some("0") {
            at = None;
        // The last line of each. `ac`: was writable once, as is what the dynamic linker has filled in.
        } else if first == "VmFlags:" && !words.any(|flag| flag == "ac") {
            found.extend(at.take());
        }
    }
    found
}

fn range(text: &str) -> Option<(usize, usize)> {
    let (start, end) = text.split_once('-')?;
    let parse = |hex| usize::from_str_radix(hex, 16).ok();
    let (start, end) = (parse(start)?, parse(end)?);
    Some((start, end.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clean_pages_that_stay_mapped_are_let_go_of() {
        let maps = "\
1000-3000 r-xp 00001000 fe:00 12 /usr/bin/signet-agent
Rss:                   8 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd mr mw me
3000-4000 r--p 00001000 fe:00 12 /usr/bin/signet-agent
Rss:                   8 kB
Anonymous:             4 kB
Swap:                  0 kB
VmFlags: rd mr mw me
4000-5000 rw-p 00001000 fe:00 12 /usr/bin/signet-agent
Rss:                   8 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd mr mw me
5000-6000 r--p 00001000 fe:00 12 /usr/bin/signet-agent
Rss:                   8 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd mr mw me
6000-7000 r--p 00001000 fe:00 12 /usr/bin/signet-agent
Rss:                   8 kB
Anonymous:             0 kB
Swap:                  4 kB
VmFlags: rd mr mw me
7000-8000 r-xp 00001000 fe:00 12 /usr/lib/libc.so.6
Rss:                   8 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd mr mw me
8000-9000 r--p 00001000 fe:00 12 /usr/lib/libc.so.6
Rss:                   8 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd mr mw me ac
9000-a000 r-xp 00001000 fe:00 12 /usr/lib/libnss_systemd.so.2
Rss:                   8 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd mr mw me
a000-b000 r--p 00001000 fe:00 12 [vvar]
Rss:                   8 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd mr mw me
";
        let found = untouched(maps, "/usr/bin/signet-agent");
        assert_eq!(found, [(0x1000, 0x2000), (0x5000, 0x1000), (0x7000, 0x1000)]);
    }

    /// Kilobytes of files that this process has mapped and present.
    fn present() -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    fn the_program_goes_on_with_fewer_pages() {
        let text = format!("{:?}", range("10-20"));
        let before = present();
        give_back().unwrap();
        assert!(present() < before, "{} kB of {before} are left", present());
        assert_eq!(format!("{:?}", range("10-20")), text);
    }
}
