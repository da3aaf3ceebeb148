//! The journal: what happened on this host, written before it is told.
//!
//! A journal ("log") is a numbered hash chain of events in append-only segments. One thread writes; whatever waits when
//! it comes round is written with one `fdatasync` (group commit). Only synced events are ever reported or acted upon.
//! A torn tail is cut at the next start; damage before it begins a new log.

mod log;
mod meta;
mod open;
mod reader;
mod record;
mod reserve;
mod segment;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use signet_common::Envelope;
use signet_common::chain::ChainHash;
use signet_common::ids::{Jti, LogId};
use signet_common::messages::{BusyReason, Event};
use signet_common::time::Micros;
use tokio::sync::{mpsc, oneshot, watch};

use self::log::Log;
pub(crate) use self::log::old_logs;
use self::meta::Meta;
pub(crate) use self::meta::replace;
use self::open::Found;
pub use self::open::{Recovered, Unfinished};
pub use self::reader::{Line, Reader};
use crate::limits::{COMMIT_BYTES_MAX, JOURNAL_ORDERS_MAX};

/// One event to write.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// What happened.
    pub event: Event,
    /// Until when its id stays known, whole seconds since 1970; 0 = it makes none known.
    pub exp: i64,
    /// The whole message, with `accepted`.
    pub message: Option<Envelope>,
}

/// What entries are for: it decides what may still be written when room gets short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// New work: refused as soon as room gets short.
    Work,
    /// What goes on: refused on a full disk.
    Progress,
    /// An end: may use the reserve.
    End,
}

impl Purpose {
    /// Why something for this is not even tried.
    fn refused(self, trouble: Option<BusyReason>) -> Option<NotWritten> {
        let refused = match self {
            Self::Work => trouble.is_some(),
            Self::Progress => trouble == Some(BusyReason::DiskFull),
            Self::End => false,
        };
        trouble.filter(|_| refused).map(NotWritten::Full)
    }
}

/// Why entries were not written. Nothing of them is in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotWritten {
    /// There is no room.
    #[error("the journal takes no more: {0:?}")]
    Full(BusyReason),
    /// The journal's thread is gone, because its disk failed.
    #[error("the journal is closed")]
    Closed,
}

/// Where a log stands after the last sync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The log.
    pub log_id: LogId,
    /// Its last event; 0 = none.
    pub seq: u64,
    /// The chain at `seq`.
    pub chain: ChainHash,
    /// The last event that should be reported at once.
    pub urgent: u64,
    /// The last event that the controller has, by its own word.
    pub confirmed: u64,
    /// Everything issued before this is refused; absent until the log's first hello was answered.
    pub not_before: Option<i64>,
    /// Bytes on the disk that the controller has not confirmed.
    pub unconfirmed: u64,
    /// Why no new work can be written.
    pub trouble: Option<BusyReason>,
}

impl Head {
    /// When the log began, by this host's clock or the controller's, whichever says later: whole seconds since 1970.
    #[must_use]
    pub fn began(&self) -> i64 {
        let own = self.log_id.seconds().unwrap_or_default();
        self.not_before.map_or(own, |told| told.max(own))
    }
}

/// A journal that could not be used.
#[derive(Debug, thiserror::Error)]
#[error("the journal in {dir}: {source}")]
pub struct JournalError {
    dir: String,
    source: io::Error,
}

enum Order {
    Append {
        entries: Vec<Entry>,
        purpose: Purpose,
        now: Micros,
        done: oneshot::Sender<Result<(), NotWritten>>,
    },
    NewLog {
        boot_id: String,
        done: oneshot::Sender<()>,
    },
    BeginAt {
        time: i64,
        done: oneshot::Sender<Result<(), NotWritten>>,
    },
    Confirm {
        seq: u64,
        verified: i64,
    },
    Booted {
        boot_id: String,
    },
    Retain {
        now: Micros,
        verified: i64,
    },
    Ping {
        done: oneshot::Sender<()>,
    },
}

/// The way to the journal's thread. Cheap to clone.
#[derive(Clone)]
pub struct Journal {
    dir: PathBuf,
    orders: mpsc::Sender<Order>,
    head: watch::Receiver<Head>,
}

/// An opened journal.
pub struct Opened {
    /// The way to it.
    pub journal: Journal,
    /// What it remembers; empty in a new log.
    pub recovered: Recovered,
    /// Ends when the thread does; an error is one after which the agent must stop.
    pub ended: oneshot::Receiver<io::Result<()>>,
}

/// The directory of the current log.
fn log_dir(root: &Path) -> PathBuf {
    root.join("journal")
}

impl Journal {
    /// Opens the journal in the data directory `root`, or begins one.
    ///
    /// # Errors
    /// When the disk fails. A damaged journal is not an error: it is set aside and a new log begins.
    pub fn open(root: &Path, boot_id: &str) -> Result<Opened, JournalError> {
        let failed = |source| JournalError { dir: root.display().to_string(), source };
        let dir = log_dir(root);
        let (log, recovered) = match open::open(root, &dir).map_err(failed)? {
            Found::Log(log, recovered) => (*log, recovered),
            Found::Nothing => (new_log(root, boot_id).map_err(failed)?, Recovered::default()),
            Found::Damaged(why) => {
                tracing::error!(why, "the journal is damaged; a new log begins");
                log::set_aside(root, &dir).map_err(failed)?;
                (new_log(root, boot_id).map_err(failed)?, Recovered::default())
            }
        };
        let (head_tx, head) = watch::channel(log.head());
        let (orders, queue) = mpsc::channel(JOURNAL_ORDERS_MAX);
        let (ended_tx, ended) = oneshot::channel();
        let run = move || {
            let result = write_until_closed(log, queue, &head_tx);
            if let Err(error) = &result {
                tracing::error!(%error, "the journal's disk failed");
            }
            tell(ended_tx, result);
        };
        thread::Builder::new().name("journal".into()).stack_size(512 * 1024).spawn(run).map_err(failed)?;
        Ok(Opened { journal: Self { dir, orders, head }, recovered, ended })
    }

    /// Appends entries, all or none, and returns when they are synced.
    ///
    /// # Errors
    /// [`NotWritten`].
    pub async fn append(&self, entries: Vec<Entry>, purpose: Purpose, now: Micros) -> Result<(), NotWritten> {
        self.ask(|done| Order::Append { entries, purpose, now, done }).await?
    }

    /// Sets the current log aside and begins a new one.
    ///
    /// # Errors
    /// [`NotWritten::Closed`].
    pub async fn new_log(&self, boot_id: String) -> Result<(), NotWritten> {
        self.ask(|done| Order::NewLog { boot_id, done }).await
    }

    /// The log's first hello was answered at `time`, by the controller's clock.
    ///
    /// # Errors
    /// [`NotWritten`]; then the log has not begun.
    pub async fn begin_at(&self, time: i64) -> Result<(), NotWritten> {
        self.ask(|done| Order::BeginAt { time, done }).await?
    }

    /// The controller said that it has everything up to `seq`. `verified` is the newest `iat` that was verified, whole
    /// seconds since 1970: the next start begins with it. The clock is no part of it, it may have been ahead.
    pub async fn confirm(&self, seq: u64, verified: i64) {
        self.tell(Order::Confirm { seq, verified }).await;
    }

    /// What an earlier boot left is dealt with.
    pub async fn booted(&self, boot_id: String) {
        self.tell(Order::Booted { boot_id }).await;
    }

    /// Removes what need not be kept, and looks after the reserve. `verified` as in [`Journal::confirm`].
    pub async fn retain(&self, now: Micros, verified: i64) {
        self.tell(Order::Retain { now, verified }).await;
    }

    /// Returns when the thread has come round once.
    ///
    /// # Errors
    /// [`NotWritten::Closed`].
    pub async fn ping(&self) -> Result<(), NotWritten> {
        self.ask(|done| Order::Ping { done }).await
    }

    /// Where the log stands, now and later.
    #[must_use]
    pub fn head(&self) -> watch::Receiver<Head> {
        self.head.clone()
    }

    /// Reads the current log's events.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(self.dir.clone(), self.head.borrow().log_id.clone())
    }

    async fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, NotWritten> {
        let (done, answer) = oneshot::channel();
        self.orders.send(order(done)).await.map_err(|_| NotWritten::Closed)?;
        answer.await.map_err(|_| NotWritten::Closed)
    }

    async fn tell(&self, order: Order) {
        if self.orders.send(order).await.is_err() {
            tracing::warn!("the journal is closed");
        }
    }
}

/// A message id as the number that memory and records keep.
#[must_use]
pub fn number(jti: &Jti) -> u128 {
    uuid::Uuid::try_parse(jti.as_str()).map_or(0, |id| id.as_u128())
}

fn new_log(root: &Path, boot_id: &str) -> io::Result<Log> {
    Log::create(root, log_dir(root), Meta::new(LogId::generate(), boot_id.to_owned()))
}

struct Append {
    entries: Vec<Entry>,
    purpose: Purpose,
    done: oneshot::Sender<Result<(), NotWritten>>,
}

/// The thread: takes what waits, writes it with one sync, answers all.
fn write_until_closed(
    mut log: Log,
    mut queue: mpsc::Receiver<Order>,
    head: &watch::Sender<Head>,
) -> io::Result<()> {
    let mut batch: Vec<Append> = Vec::new();
    while let Some(first) = queue.blocking_recv() {
        let (mut bytes, mut now) = (0, Micros::default());
        let mut other = None;
        let mut next = Some(first);
        while let Some(order) = next {
            let Order::Append { entries, purpose, now: at, done } = order else {
                other = Some(order);
                break;
            };
            bytes += entries.iter().map(size).sum::<usize>();
            now = now.max(at);
            batch.push(Append { entries, purpose, done });
            next = if bytes < COMMIT_BYTES_MAX { queue.try_recv().ok() } else { None };
        }
        if !batch.is_empty() {
            let groups: Vec<_> = batch.iter().map(|a| (a.entries.as_slice(), a.purpose)).collect();
            let results = log.commit(&groups, now)?;
            head.send_replace(log.head());
            for (append, result) in batch.drain(..).zip(results) {
                tell(append.done, result);
            }
        }
        if let Some(order) = other {
            let (same, answer) = obey(log, order)?;
            log = same;
            head.send_if_modified(|old| {
                let new = log.head();
                let changed = *old != new;
                *old = new;
                changed
            });
            match answer {
                Some(Answer::Done(done)) => tell(done, ()),
                Some(Answer::Written(done, written)) => tell(done, written),
                None => {}
            }
        }
    }
    Ok(())
}

/// What is told to whom.
enum Answer {
    Done(oneshot::Sender<()>),
    Written(oneshot::Sender<Result<(), NotWritten>>, Result<(), NotWritten>),
}

/// Everything but appending. Who waits for an answer is told when the head shows it.
fn obey(mut log: Log, order: Order) -> io::Result<(Log, Option<Answer>)> {
    let mut answer = None;
    match order {
        Order::Append { .. } => {}
        Order::Confirm { seq, verified } => log.confirm(seq, verified),
        Order::Booted { boot_id } => log.booted(boot_id),
        Order::Retain { now, verified } => log.retain(now, verified)?,
        Order::Ping { done } => answer = Some(Answer::Done(done)),
        Order::BeginAt { time, done } => answer = Some(Answer::Written(done, log.begin_at(time)?)),
        Order::NewLog { boot_id, done } => {
            let (root, dir, time) = (log.root.clone(), log.dir.clone(), log.meta.time);
            drop(log);
            log::set_aside(&root, &dir)?;
            log = new_log(&root, &boot_id)?;
            log.meta.time = time;
            answer = Some(Answer::Done(done));
        }
    }
    Ok((log, answer))
}

/// Answers whoever asked. They may have gone; what was written stands all the same.
fn tell<T>(done: oneshot::Sender<T>, answer: T) {
    if done.send(answer).is_err() {
        tracing::debug!("nobody waits for the journal's answer");
    }
}

fn size(entry: &Entry) -> usize {
    let output = match &entry.event {
        Event::Output { data, .. } => data.len(),
        Event::Result { result, .. } => result.stdout.len() + result.stderr.len(),
        _ => 0,
    };
    256 + output * 4 / 3 + entry.message.as_ref().map_or(0, |m| m.body.len())
}
