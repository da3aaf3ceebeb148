//! Files in memory that only the driver's children reach, through its own entry in /proc: a secret never lies on a disk,
//! and is in no argument and no environment. It is gone with the driver, however that ends.

use std::fs::{File, Permissions};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::plan::Fault;

/// One file in memory, mode 0600.
#[derive(Debug)]
pub(super) struct Memory(File);

impl Memory {
    /// With this content.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn holding(text: &str) -> Result<Self, Fault> {
        let make = || -> std::io::Result<File> {
            let mut file = File::from(memfd_create(c"signet", MFdFlags::MFD_CLOEXEC)?);
            // ssh takes no key that others may read.
            file.set_permissions(Permissions::from_mode(0o600))?;
            file.write_all(text.as_bytes())?;
            Ok(file)
        };
        make().map(Self).map_err(Fault::of("no file in memory"))
    }

    /// Under which path a child opens it.
    pub(super) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}
