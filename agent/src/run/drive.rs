//! Follows one command from its start to its end: reads, tells, ends. Reading never stops, however slow the listener is.

use std::io;
use std::time::Duration;

use signet_common::messages::{CommandResult, Outcome, Stream};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::output::Capture;
use super::tree::{Tree, TreeEvent};
use super::{End, RunEvent};
use crate::launch::wire::Exit;
use crate::limits::{KILL_GRACE, OUTPUT_GRACE, PIPE_READ_BYTES, PIPE_READS_MAX, TERM_GRACE};

/// A command that has just been executed.
pub(crate) struct Started {
    pub(crate) tree: Tree,
    pub(crate) stdout: pipe::Receiver,
    pub(crate) stderr: pipe::Receiver,
    pub(crate) timeout: Duration,
    pub(crate) output_limit: u64,
}

/// Who ended a command that had not ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EndedBy {
    Timeout,
    Order(End),
}

/// Each phase has a moment at which the next one begins, whatever happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Until its time-out.
    Runs,
    /// TERM was sent.
    Terminating,
    /// The main process is over; its output may still come.
    Draining,
    /// KILL was sent.
    Killing,
    /// No process is left; the pipes hold what was written last.
    Over,
}

struct Driver {
    tree: Tree,
    pipes: [Option<pipe::Receiver>; 2],
    buffer: Vec<u8>,
    capture: Capture,
    started: Instant,
    timeout: Duration,
    phase: Phase,
    /// When the phase ends at the latest.
    until: Instant,
    ended_by: Option<EndedBy>,
    exit: Option<(Exit, Instant)>,
    killed: u64,
    left: u64,
}

/// Drives the command to its end and tells everything but [`RunEvent::Finished`]. Gives the result.
pub(crate) async fn drive(
    command: Started,
    events: &mpsc::Sender<RunEvent>,
    mut end: watch::Receiver<Option<End>>,
) -> CommandResult {
    let started = Instant::now();
    let mut driver = Driver {
        tree: command.tree,
        pipes: [Some(command.stdout), Some(command.stderr)],
        buffer: vec![0; PIPE_READ_BYTES],
        capture: Capture::new(command.output_limit, started),
        started,
        timeout: command.timeout,
        phase: Phase::Runs,
        until: started + command.timeout,
        ended_by: None,
        exit: None,
        killed: 0,
        left: 0,
    };
    while !driver.is_done() {
        driver.step(events, &mut end).await;
    }
    driver.finish(events).await
}

impl Driver {
    fn is_done(&self) -> bool {
        self.phase == Phase::Over && (self.pipes_closed() || Instant::now() >= self.until)
    }

    fn pipes_closed(&self) -> bool {
        self.pipes.iter().all(Option::is_none)
    }

    async fn step(&mut self, events: &mpsc::Sender<RunEvent>, end: &mut watch::Receiver<Option<End>>) {
        let [stdout, stderr] = &self.pipes;
        let due = self.capture.due();
        tokio::select! {
            () = readable(stdout.as_ref()) => self.read(0),
            () = readable(stderr.as_ref()) => self.read(1),
            event = self.tree.next(), if self.phase != Phase::Over => self.tree_event(event),
            () = sleep_until(self.until) => self.next_phase(),
            why = ordered(events, end), if self.phase == Phase::Runs => self.terminate(EndedBy::Order(why)),
            // A listener that is gone hears nothing more, but everything is still counted.
            Ok(permit) = tell_when_due(events, due) => {
                if let Some(event) = self.capture.take(Instant::now()) {
                    permit.send(event);
                }
            }
        }
        if self.phase == Phase::Draining && self.pipes_closed() {
            self.next_phase();
        }
    }

    /// Reads what is there, one buffer at most, so that everything else gets its turn.
    fn read(&mut self, which: usize) {
        let Some(pipe) = &self.pipes[which] else { return };
        let read = pipe.try_read(&mut self.buffer);
        self.took(which, read);
    }

    /// Takes what was read. False when there is no more for now.
    fn took(&mut self, which: usize, read: io::Result<usize>) -> bool {
        match read {
            Ok(0) => self.pipes[which] = None,
            Ok(length) => {
                let stream = if which == 0 { Stream::Stdout } else { Stream::Stderr };
                self.capture.push(stream, &self.buffer[..length], Instant::now());
                return true;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                tracing::warn!(%error, "a command's output cannot be read");
                self.pipes[which] = None;
            }
        }
        false
    }

    /// Takes what the pipes hold, at most what they can: on a busy host this task may have had no turn for longer than any
    /// phase lasts, and what was written in time is not lost for that.
    fn drain(&mut self) {
        for which in 0..self.pipes.len() {
            for _ in 0..PIPE_READS_MAX {
                let Some(pipe) = &self.pipes[which] else { break };
                // Not through the runtime, which may not have looked at the pipe since.
                let read = nix::unistd::read(pipe, &mut self.buffer).map_err(io::Error::from);
                if !self.took(which, read) {
                    break;
                }
            }
        }
    }

    fn tree_event(&mut self, event: TreeEvent) {
        match event {
            TreeEvent::Exited(exit) => {
                self.exit = Some((exit, Instant::now()));
                if self.phase == Phase::Runs {
                    self.enter(Phase::Draining, OUTPUT_GRACE);
                }
            }
            TreeEvent::Empty { killed, left } => {
                (self.killed, self.left) = (killed, left);
                self.enter(Phase::Over, OUTPUT_GRACE);
            }
        }
    }

    /// The phase's time is up.
    fn next_phase(&mut self) {
        match self.phase {
            Phase::Runs => self.terminate(EndedBy::Timeout),
            Phase::Terminating | Phase::Draining => {
                self.tree.kill();
                // The tree itself gives up after one grace, and says what it left.
                self.enter(Phase::Killing, 2 * KILL_GRACE);
            }
            Phase::Killing => {
                self.left = self.left.max(1);
                self.enter(Phase::Over, Duration::ZERO);
            }
            Phase::Over => {}
        }
    }

    fn terminate(&mut self, by: EndedBy) {
        self.ended_by = Some(by);
        self.tree.term();
        self.enter(Phase::Terminating, TERM_GRACE);
    }

    fn enter(&mut self, phase: Phase, at_most: Duration) {
        self.phase = phase;
        self.until = Instant::now() + at_most;
    }

    async fn finish(mut self, events: &mpsc::Sender<RunEvent>) -> CommandResult {
        let (exit, ended) = self.exit.unwrap_or((Exit::Lost, Instant::now()));
        self.drain();
        let over = Instant::now();
        while let Some(event) = self.capture.take_rest(over) {
            if events.send(event).await.is_err() {
                break;
            }
        }
        self.tree.remove().await;
        let captured = self.capture.finish();
        let (outcome, reason) = outcome(self.ended_by, exit, self.timeout);
        let unended = (self.left > 0).then(|| format!("{} processes could not be ended", self.left));
        let reasons: Vec<String> = reason.into_iter().chain(unended).collect();
        CommandResult {
            outcome,
            reason: (!reasons.is_empty()).then(|| reasons.join("; ")),
            exit_code: if let Exit::Code(code) = exit { Some(code) } else { None },
            signal: if let Exit::Signal(signal) = exit { Some(signal) } else { None },
            stdout: captured.stdout,
            stderr: captured.stderr,
            stdout_summary: captured.stdout_summary,
            stderr_summary: captured.stderr_summary,
            killed: self.killed,
            duration_ms: u64::try_from(ended.duration_since(self.started).as_millis()).unwrap_or(u64::MAX),
            deploy: None,
        }
    }
}

fn outcome(ended_by: Option<EndedBy>, exit: Exit, timeout: Duration) -> (Outcome, Option<String>) {
    match (ended_by, exit) {
        (Some(EndedBy::Timeout), _) => {
            (Outcome::TimedOut, Some(format!("timed out after {} s", timeout.as_secs_f64())))
        }
        (Some(EndedBy::Order(End::Cancel)), _) => (Outcome::Cancelled, None),
        (Some(EndedBy::Order(End::AgentStops)), _) => (Outcome::Interrupted, Some("agent stopped".into())),
        (None, Exit::Code(0)) => (Outcome::Succeeded, None),
        (None, Exit::Code(_) | Exit::Signal(_)) => (Outcome::Failed, None),
        (None, Exit::Lost) => (Outcome::Failed, Some("the process that watched it was killed".into())),
    }
}

async fn readable(pipe: Option<&pipe::Receiver>) {
    match pipe {
        // An error shows in the read that follows.
        Some(pipe) => drop(pipe.readable().await),
        None => std::future::pending().await,
    }
}

/// Waits until someone wants the command to end; a listener that went away wants that too.
async fn ordered(events: &mpsc::Sender<RunEvent>, end: &mut watch::Receiver<Option<End>>) -> End {
    tokio::select! {
        why = async { end.wait_for(Option::is_some).await.map(|why| *why) } => match why {
            Ok(Some(why)) => why,
            _ => End::AgentStops,
        },
        () = events.closed() => End::AgentStops,
    }
}

async fn tell_when_due<'a>(
    events: &'a mpsc::Sender<RunEvent>,
    due: Option<Instant>,
) -> Result<mpsc::Permit<'a, RunEvent>, mpsc::error::SendError<()>> {
    match due {
        Some(due) => {
            sleep_until(due).await;
            events.reserve().await
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::child::{self, Child};
    use crate::run::tree::BelowLauncher;
    use std::io::Write as _;

    #[tokio::test]
    async fn what_was_written_is_taken_however_late_the_driver_is() {
        let spawned = std::process::Command::new("true").spawn().unwrap();
        let child = Child::adopt(spawned, child::ends().unwrap());
        let (control, _launcher) = tokio::net::UnixStream::pair().unwrap();
        let tree =
            BelowLauncher::new(child, control, bytes::BytesMut::new(), None, signet_common::Jti::generate());
        let (stdout, mut writer) = io::pipe().unwrap();
        writer.write_all(b"in time").unwrap();
        let stdout = pipe::Receiver::from_owned_fd(stdout.into()).unwrap();
        let now = Instant::now();
        let driver = Driver {
            tree: Tree::Launcher(Box::new(tree)),
            pipes: [Some(stdout), None],
            buffer: vec![0; PIPE_READ_BYTES],
            capture: Capture::new(1_024, now),
            started: now,
            timeout: Duration::from_secs(1),
            phase: Phase::Over,
            until: now,
            ended_by: None,
            exit: Some((Exit::Code(0), now)),
            killed: 0,
            left: 0,
        };
        assert!(driver.is_done(), "its time was up before it had a turn");
        let (events, _listener) = mpsc::channel(1);
        let result = driver.finish(&events).await;
        assert_eq!((result.stdout.as_slice(), result.stdout_summary.bytes), (&b"in time"[..], 7));
    }
}
