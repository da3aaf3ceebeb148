//! Small file systems.

use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Runs a test on a file system of its own, of so many bytes, which covers the directory `at` for this test's thread and
/// the threads and processes that it starts, and for nobody else.
///
/// # Panics
/// When the test does, and without the right to mount.
pub fn on_a_disk_of(bytes: u64, at: &Path, test: impl FnOnce() + Send) {
    let run = || {
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace; it takes root");
        let (none, private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
        mount(none, "/", none, private, none).expect("mounts of its own");
        let size = format!("size={bytes},mode=0755");
        mount(Some("signet-test"), at, Some("tmpfs"), MsFlags::empty(), Some(size.as_str()))
            .expect("a tmpfs");
        test();
    };
    std::thread::scope(|scope| {
        if let Err(panic) = scope.spawn(run).join() {
            std::panic::resume_unwind(panic);
        }
    });
}
