//! Ctrl-C, and the end that a build server or a service manager asks for (SIGTERM): the first one is a wish, the second one
//! is obeyed at once.

use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use nix::sys::signal::{SigSet, Signal};

use crate::limits::SAME_INTERRUPT;

/// Whether somebody has pressed Ctrl-C, or asked for the end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes Ctrl-C and SIGTERM over. Call it before any other thread is started: they inherit that the signal waits.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn take_over() -> nix::Result<Self> {
        let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
        signals.thread_block()?;
        let pressed = Self::default();
        let heard = pressed.clone();
        thread::spawn(move || {
            let mut first: Option<Instant> = None;
            while signals.wait().is_ok() {
                // A program above us may pass on what the terminal has sent to us too.
                if first.is_some_and(|at| at.elapsed() >= SAME_INTERRUPT) {
                    exit(130);
                }
                first.get_or_insert_with(Instant::now);
                heard.0.store(true, Ordering::Relaxed);
            }
        });
        Ok(pressed)
    }

    /// Whether it was pressed once.
    pub(crate) fn pressed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
