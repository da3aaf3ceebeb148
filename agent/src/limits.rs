//! Every bound of the agent, by name. What agent and controller share is in [`signet_common::limits`].

use std::time::Duration;

/// A segment of the journal is closed when it is at least this large, in bytes.
pub const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;
/// Largest record of the journal, in bytes: an event with a whole message, headers included.
pub const RECORD_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Records that one sync may cover, in bytes; what waits beyond goes into the next.
pub const COMMIT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Orders that may wait for the journal's thread; above it callers wait.
pub const JOURNAL_ORDERS_MAX: usize = 1_024;
/// Confirmed events are kept at most this long, in seconds.
pub const CONFIRMED_SECONDS_MAX: i64 = 7 * 86_400;
/// Confirmed events are kept up to this many bytes.
pub const CONFIRMED_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// With this many unconfirmed bytes the agent takes no more work.
pub const UNCONFIRMED_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// With this many unconfirmed bytes the agent asks the controller what it has, by saying hello.
pub const UNCONFIRMED_BYTES_ASK: u64 = 256 * 1024 * 1024;
/// Disk space held back, so that results can be written on a full disk, in bytes.
pub const RESERVE_BYTES: u64 = 16 * 1024 * 1024;
/// A disk that was full has room again when this much is free beside the reserve, in bytes.
pub const RESERVE_ROOM_BYTES: u64 = 1024 * 1024;
/// How often the journal is trimmed and its reserve looked after.
pub const RETENTION_EVERY: Duration = Duration::from_secs(60);
/// Old logs that are kept beside the current one, for a person to look at.
pub const OLD_LOGS_MAX: usize = 1;

/// Commands that run at the same time unless configured otherwise.
pub const SLOTS_DEFAULT: usize = 8;
/// Most commands that may be configured to run at the same time.
pub const SLOTS_MAX: usize = 1_024;
/// Accepted messages that may wait for a slot.
pub const WAITING_MAX: usize = 1_000;
/// Bytes of accepted messages that may wait for a slot.
pub const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Ids of cancels, resumes and keyrings that are remembered as duplicates. They do no harm when they come twice.
pub const CONTROL_IDS_MAX: usize = 4_096;
/// An id is known this long after it expired, and only so long is a message that came late told of, in seconds. What is
/// replayed later is counted and makes no event.
pub const LATE_SECONDS_MAX: i64 = 120;
/// How often ids that have expired are forgotten.
pub const FORGET_EVERY: Duration = Duration::from_secs(60);
/// Messages that the broker may hand out before they are acknowledged.
pub const PREFETCH: u16 = 256;
/// Messages taken into one sync.
pub const TAKE_MAX: usize = 64;

/// `accepted` and `started` wait this long for company before they are reported.
pub const REPORT_WAIT: Duration = Duration::from_millis(200);
/// How soon a heartbeat may follow another because the agent became busy or free.
pub const BUSY_EVERY: Duration = Duration::from_millis(500);
/// How often waiting commands are looked at for their expiry.
pub const WAITING_EVERY: Duration = Duration::from_secs(2);
/// How long accepted commands wait after a start for the controller's word on this log.
pub const FIRST_WORD: Duration = Duration::from_secs(10);
/// First pause after a report that was not taken; doubled up to [`RETRY_MAX`].
pub const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest pause between two tries of anything.
pub const RETRY_MAX: Duration = Duration::from_secs(60);
/// How long a hello, or its nonce, may take.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(20);
/// Largest answer to a hello, in bytes.
pub const HELLO_ANSWER_BYTES_MAX: u64 = 1024 * 1024;
/// Largest header block of an answer: it carries the chain of keyrings.
pub const HELLO_HEADER_BYTES_MAX: usize = 1024 * 1024;
/// A hello is said again after this long.
pub const HELLO_EVERY: Duration = Duration::from_secs(3_600);
/// Shortest time between two hellos that are said for a reason.
pub const HELLO_GAP: Duration = Duration::from_secs(5);
/// First pause while an admin has not accepted this agent; doubled up to [`RETRY_MAX`].
pub const PENDING_FIRST: Duration = Duration::from_secs(2);

/// What runs gets this long to end by itself when the agent stops.
pub const STOP_GRACE: Duration = Duration::from_secs(60);
/// What was ended at a stop gets this long until its result is in the journal.
pub const STOP_END: Duration = Duration::from_secs(15);
/// The last report and the last heartbeat get this long.
pub const STOP_REPORT: Duration = Duration::from_secs(3);
/// How often every loop shows that it turns.
pub const PULSE_EVERY: Duration = Duration::from_secs(10);
/// A loop that has not turned for this long is stuck. Longer than a publish waits for its confirm.
pub const PULSE_MAX: Duration = Duration::from_secs(50);

/// Largest configuration or policy file, in bytes.
pub const CONFIG_BYTES_MAX: u64 = 1024 * 1024;
/// Longest text of a reason that is written into an event, in bytes.
pub const REASON_BYTES_MAX: usize = 1_024;

/// Output is at most this old when it is reported, and a command that ends sooner has it in its result.
pub const OUTPUT_EVERY: Duration = Duration::from_secs(1);
/// After its main process a command gets this long for what its output still holds.
pub const OUTPUT_GRACE: Duration = Duration::from_secs(1);
/// Between TERM and KILL.
pub const TERM_GRACE: Duration = Duration::from_secs(5);
/// How long a killed process may take to vanish; longer only when the kernel itself hangs in it.
pub const KILL_GRACE: Duration = Duration::from_secs(5);
/// How long the launcher may take until the command is executed (user databases and network disks can be slow).
pub const START_MAX: Duration = Duration::from_secs(30);
/// The launchers' server is let go when it was not needed for this long.
pub const LAUNCHER_IDLE: Duration = Duration::from_secs(30);
/// Launchers that may have been asked for and not have answered yet. Each is three descriptors on their way.
pub const LAUNCHES_MAX: usize = 64;
/// A launcher that is gone without a word is asked for again, so many times altogether.
pub const LAUNCH_TRIES: usize = 3;
/// How long `systemd-run` may take for a detached command.
pub const DETACH_MAX: Duration = Duration::from_secs(60);
/// Pause between two looks at a tree that is being ended.
pub const TREE_LOOK_EVERY: Duration = Duration::from_millis(10);
/// Longest plan or reply between agent and launcher, in bytes.
pub const LAUNCH_FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes read from a pipe at once.
pub const PIPE_READ_BYTES: usize = 64 * 1024;
/// Reads that take all that one pipe can hold: Linux's default for its largest is 1 MiB.
pub const PIPE_READS_MAX: usize = 16;
/// Events of one running command that may wait for whoever listens; what comes meanwhile is put together.
pub const RUN_EVENTS_MAX: usize = 4;
/// How long `join` tries to reach the controller.
pub const JOIN_REACH_MAX: Duration = Duration::from_secs(60);
/// How long `join` waits for this host to be online.
pub const JOIN_ONLINE_MAX: Duration = Duration::from_secs(120);
/// How often `join` looks.
pub const JOIN_LOOK: Duration = Duration::from_millis(500);
/// Deployed paths that are remembered.
pub const DEPLOYED_PATHS_MAX: usize = 64;
/// Largest file that remembers them, in bytes: each may hold a message's hooks.
pub const DEPLOYED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How long after a deployment deployed paths are looked at.
pub const DRIFT_AFTER: Duration = Duration::from_secs(1);
/// How often deployed paths are looked at.
pub const DRIFT_EVERY: Duration = Duration::from_secs(600);
/// How long a look at one may take.
pub const DRIFT_LOOK_MAX: Duration = Duration::from_secs(60);
/// Longest report of a driver, in bytes.
pub const DEPLOY_REPORT_BYTES_MAX: u64 = 64 * 1024;
/// What is kept of what one git process answers, in bytes; the rest is not looked at.
pub const GIT_ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// What is kept of its complaints, in bytes: the last ones. All of them are in the output.
pub const GIT_COMPLAINTS_BYTES_MAX: usize = 64 * 1024;
/// Names of files that one sentence about a deployment shows.
pub const DEPLOY_NAMES_SHOWN: usize = 10;
/// Characters of a health check's address in a reason.
pub const HEALTH_URL_CHARS_SHOWN: usize = 200;
/// The longest that a preflight waits until nobody else is at work at its path. Half of its own time is another bound.
pub const PREFLIGHT_LOCK_MAX: Duration = Duration::from_secs(300);
/// How often it tries.
pub const PREFLIGHT_LOCK_EVERY: Duration = Duration::from_millis(100);
/// How often a health check's command is looked at.
pub const PROBE_LOOK_EVERY: Duration = Duration::from_millis(20);
