//! What can be seen from outside of a controller in this process: its log, its statements, and the processes that run
//! meanwhile.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt as _};

/// The lines of this process's log, kept.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Keeps all from now on, the finest of the controller's with it. Once in a process.
    pub fn keep() -> Self {
        let log = Self::default();
        let (lines, targets) = (log.clone(), "debug,signet_controller=trace,lapin=off");
        let targets: Targets = targets.parse().unwrap();
        let layer = tracing_subscriber::fmt::layer().with_writer(move || lines.clone());
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(targets).with(layer))
            .unwrap();
        log
    }

    /// All of it so far.
    pub fn seen(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The beginnings of the statements that this process sends to databases.
#[derive(Clone, Default)]
pub struct Statements(Arc<Mutex<Vec<String>>>);

impl Statements {
    /// Keeps all from now on. Once in a process.
    pub fn keep() -> Self {
        let seen = Self::default();
        let targets: Targets = "sqlx::query=debug".parse().unwrap();
        let layer = tracing_subscriber::registry().with(seen.clone().with_filter(targets));
        tracing::subscriber::set_global_default(layer).unwrap();
        seen
    }

    /// How many since it was asked last began like this, as far as their first four words tell; the others are forgotten.
    pub fn begun(&self, with: &[&str]) -> usize {
        let seen = std::mem::take(&mut *self.0.lock().unwrap());
        seen.iter().filter(|text| with.iter().any(|begin| text.starts_with(begin))).count()
    }
}

impl<S: tracing::Subscriber> Layer<S> for Statements {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            if field.name() == "summary" {
                let text = format!("{value:?}");
                self.0.lock().unwrap().push(text.trim_start_matches('"').to_owned());
            }
        });
    }
}

/// Looks at arguments and environments of everything else that runs.
pub struct Processes {
    stop: Arc<AtomicBool>,
    looking: JoinHandle<Vec<u8>>,
}

impl Processes {
    /// Looks from now on.
    pub fn watch() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let looking = std::thread::spawn({
            let stop = stop.clone();
            move || look(&stop)
        });
        Self { stop, looking }
    }

    /// All that was seen.
    pub fn seen(self) -> Vec<u8> {
        self.stop.store(true, Ordering::Relaxed);
        self.looking.join().unwrap()
    }
}

fn look(stop: &AtomicBool) -> Vec<u8> {
    let mut all = BTreeSet::new();
    let own = std::process::id().to_string();
    while !stop.load(Ordering::Relaxed) {
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap_or_default();
            if name != own && name.bytes().all(|b| b.is_ascii_digit()) {
                let files = ["cmdline", "environ"].map(|file| std::fs::read(entry.path().join(file)));
                all.extend(files.into_iter().flatten());
            }
        }
        // Often enough to meet each git, and not at the cost of what it looks at.
        std::thread::park_timeout(Duration::from_millis(2));
    }
    all.into_iter().flatten().collect()
}
