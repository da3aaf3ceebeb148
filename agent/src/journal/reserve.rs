//! Disk space that is held back, so that the last words of running commands find room on a full disk.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::posix_fallocate;

use crate::limits::RESERVE_BYTES;

/// The file `reserve` in the data directory.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    held: bool,
}

impl Reserve {
    /// Takes the space if the disk has it.
    pub(super) fn take(root: &Path) -> Self {
        let mut reserve = Self { path: root.join("reserve"), held: false };
        reserve.refill();
        reserve
    }

    /// Whether the space is there. Without it the disk counts as full.
    pub(super) fn held(&self) -> bool {
        self.held
    }

    /// Gives the space back to the disk.
    pub(super) fn release(&mut self) {
        self.held = false;
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, "the journal's reserve can't be released");
        }
    }

    /// Tries to take the space (again).
    pub(super) fn refill(&mut self) {
        if self.held {
            return;
        }
        self.held = match self.allocate() {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, bytes = RESERVE_BYTES, "no room for the journal's reserve");
                // A partly taken reserve helps nobody.
                if let Err(error) = fs::remove_file(&self.path) {
                    tracing::warn!(%error, "what was taken of the reserve can't be given back");
                }
                false
            }
        };
    }

    fn allocate(&self) -> io::Result<()> {
        let file = File::options().create(true).write(true).truncate(false).open(&self.path)?;
        if file.metadata()?.len() == RESERVE_BYTES {
            return Ok(());
        }
        posix_fallocate(&file, 0, RESERVE_BYTES.cast_signed())?;
        Ok(())
    }
}
