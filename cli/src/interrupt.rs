//! Ctrl-C: the first one is a wish, the second one is obeyed at once.

use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::{SigSet, Signal};

/// Whether somebody has pressed Ctrl-C.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes Ctrl-C over. Call it before any other thread is started: they inherit that the signal waits.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn take_over() -> nix::Result<Self> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGINT);
        signals.thread_block()?;
        let pressed = Self::default();
        let heard = pressed.clone();
        thread::spawn(move || {
            while signals.wait().is_ok() {
                if heard.0.swap(true, Ordering::Relaxed) {
                    exit(130);
                }
            }
        });
        Ok(pressed)
    }

    /// Whether it was pressed once.
    pub(crate) fn pressed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
