//! Ctrl-C, and the end that a build server, a service manager (SIGTERM) or a terminal that closes (SIGHUP) asks for: the first
//! one is a wish, the second one is obeyed at once.

use std::io::{self, Write as _};
use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use std::{fs, thread};

use nix::sys::signal::{SigSet, Signal};

use crate::limits::SAME_INTERRUPT;

/// Whether somebody has pressed Ctrl-C, or asked for the end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupt(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    pressed: AtomicBool,
    /// The last line on standard output of who is ended at once.
    last_line: Mutex<Option<String>>,
}

impl Interrupt {
    /// Takes Ctrl-C, SIGTERM and SIGHUP over. Call it before any other thread is started: they inherit that the signal
    /// waits.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn take_over() -> nix::Result<Self> {
        let mut signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
        // Who starts it with `nohup` wants it to outlive the terminal.
        if !ignores_hangups(&fs::read_to_string("/proc/self/status").unwrap_or_default()) {
            signals.add(Signal::SIGHUP);
        }
        signals.thread_block()?;
        let interrupt = Self::default();
        let heard = interrupt.clone();
        thread::spawn(move || {
            let mut first: Option<Instant> = None;
            while signals.wait().is_ok() {
                // A program above us may pass on what the terminal has sent to us too.
                if first.is_some_and(|at| at.elapsed() >= SAME_INTERRUPT) {
                    heard.leave();
                }
                first.get_or_insert_with(Instant::now);
                heard.0.pressed.store(true, Ordering::Relaxed);
            }
        });
        Ok(interrupt)
    }

    /// Whether it was pressed once.
    pub(crate) fn pressed(&self) -> bool {
        self.0.pressed.load(Ordering::Relaxed)
    }

    /// What standard output ends with when the second one is obeyed.
    pub(crate) fn ends_with(&self, line: String) {
        *self.0.last_line.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
    }

    /// Ends the program. Who reads our output may be stuck: then the line waits for them, and the next signal does not.
    fn leave(&self) {
        let Some(line) = self.0.last_line.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            exit(130)
        };
        thread::spawn(move || {
            // Nobody is left to be told that it can't be written.
            writeln!(io::stdout(), "{line}").ok();
            exit(130);
        });
    }
}

/// Whether a process with this `/proc/PID/status` was told to ignore SIGHUP.
fn ignores_hangups(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or_default();
    mask & (1 << (Signal::SIGHUP as u64 - 1)) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nohup_is_seen() {
        assert!(ignores_hangups("Name:\tsignet\nSigIgn:\t0000000000000001\nSigCgt:\t0\n"));
        assert!(!ignores_hangups("SigIgn:\t0000000000001000\n"));
        assert!(!ignores_hangups(""));
    }
}
