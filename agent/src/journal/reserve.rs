//! Disk space that is held back, so that the last words of running commands find room on a full disk.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::posix_fallocate;

use crate::limits::{RESERVE_BYTES, RESERVE_ROOM_BYTES};

/// The file `reserve` in the data directory.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    /// Whether the space is there.
    held: bool,
    /// Whether the disk had no room lately.
    short: bool,
}

impl Reserve {
    /// Takes the space if the disk has it.
    pub(super) fn take(root: &Path) -> Self {
        let mut reserve = Self { path: root.join("reserve"), held: false, short: false };
        match reserve.allocate(RESERVE_BYTES) {
            Ok(()) => reserve.held = true,
            Err(error) => {
                reserve.ran_short(&error);
                reserve.give_back();
            }
        }
        reserve
    }

    /// Whether the disk counts as full.
    pub(super) fn is_short(&self) -> bool {
        self.short
    }

    /// Something could not be written.
    pub(super) fn ran_short(&mut self, error: &io::Error) {
        if !self.short {
            tracing::warn!(%error, held = self.held, bytes = RESERVE_BYTES, "the journal's disk is full");
        }
        self.short = true;
    }

    /// Gives the space back to the disk, for an end. False when there was none.
    pub(super) fn release(&mut self) -> bool {
        let held = std::mem::take(&mut self.held);
        if held {
            tracing::warn!("the journal's reserve is used for ends");
            self.give_back();
        }
        held
    }

    /// Once the disk was full: looks whether it has room again, for the reserve and a little more.
    pub(super) fn look_after(&mut self) {
        if !self.short {
            return;
        }
        let room = self.allocate(RESERVE_BYTES + RESERVE_ROOM_BYTES);
        if room.is_err() && !self.held {
            // A partly taken reserve helps nobody.
            return self.give_back();
        }
        let cut = File::options().write(true).open(&self.path).and_then(|file| file.set_len(RESERVE_BYTES));
        match room.and(cut) {
            Ok(()) => {
                tracing::info!("the journal's disk has room again");
                (self.held, self.short) = (true, false);
            }
            Err(error) => tracing::debug!(%error, "the journal's disk is still full"),
        }
    }

    fn give_back(&self) {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "the journal's reserve can't be given back");
            }
            _ => {}
        }
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let file = File::options().create(true).write(true).truncate(false).open(&self.path)?;
        if file.metadata()?.len() != bytes {
            posix_fallocate(&file, 0, bytes.cast_signed())?;
        }
        Ok(())
    }
}
