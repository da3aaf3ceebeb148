//! Every bound of the command line, by name.

use std::time::Duration;

/// How long a connection to the controller may take.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the controller may be silent before an answer counts as lost.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// A live stream says something every 15 s; silent for this long it is taken up anew.
pub(crate) const STREAM_SILENCE_MAX: Duration = Duration::from_secs(45);
/// Largest answer that is held in memory, in bytes. Output of commands is streamed and not held.
pub(crate) const ANSWER_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// A request that may be repeated is tried this often when its connection breaks.
pub(crate) const SEND_TRIES_MAX: u32 = 6;
/// Largest event of a live stream, in bytes: a piece of output is 64 KiB before its base64.
pub(crate) const EVENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Events that wait to be shown.
pub(crate) const NEWS_MAX: usize = 256;
/// First pause before a broken live stream is taken up again; doubled up to [`RECONNECT_MAX`].
pub(crate) const RECONNECT_FIRST: Duration = Duration::from_millis(200);
/// Longest pause between two tries.
pub(crate) const RECONNECT_MAX: Duration = Duration::from_secs(5);
/// A controller that is away for this long is given up on; the task goes on without us.
pub(crate) const LOST_MAX: Duration = Duration::from_secs(300);
/// Output of a host that is still running is shown line by line from this age on; what ends sooner is folded.
pub(crate) const LIVE_AFTER: Duration = Duration::from_secs(2);
/// How often the progress line is looked after.
pub(crate) const TICK: Duration = Duration::from_millis(250);
/// Output kept of one stream of one host to be folded, in bytes.
pub(crate) const KEPT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Output kept of all hosts to be folded, in bytes; what is beyond is compared, but shown only as a count.
pub(crate) const KEPT_BYTES_ALL_MAX: usize = 256 * 1024 * 1024;
/// A line without an end is shown when it is this long, in bytes.
pub(crate) const LINE_BYTES_MAX: usize = 8 * 1024;
/// Hosts named in one heading on a terminal; a pipe gets all of them.
pub(crate) const HEADING_HOSTS_MAX: usize = 30;
/// Longest text in one cell of a table, in characters.
pub(crate) const CELL_CHARS_MAX: usize = 80;
/// On a terminal with fewer columns, what has no room beside each other stands below each other.
pub(crate) const TABLE_COLUMNS_MIN: usize = 60;
/// Largest standard input that is read for a command, in bytes; the controller takes no more either.
pub(crate) const STDIN_BYTES_MAX: u64 = signet_common::limits::COMMAND_BYTES_MAX as u64;
/// Largest file with a key, a token, signers or known hosts, in bytes; the controller takes half of that at most.
pub(crate) const GIVEN_BYTES_MAX: u64 = 64 * 1024;
/// How long the first command of `signet up` may take to come back.
pub(crate) const SELF_TEST_MAX: Duration = Duration::from_secs(60);
/// How often `signet up` looks whether its own agent is there.
pub(crate) const SELF_TEST_LOOK: Duration = Duration::from_millis(10);
/// Threads that may block in `signet up`, beyond its two workers.
pub(crate) const BLOCKING_THREADS_MAX: usize = 16;
/// Threads that work in `signet up`: enough for one host and its browser, and each one costs memory.
pub(crate) const UP_WORKERS: usize = 2;
/// Tasks of a host that the doctor looks at.
pub(crate) const DOCTOR_TASKS_MAX: usize = 10;
/// A clock that is this far off is worth a word, in milliseconds.
pub(crate) const CLOCK_WORTH_A_WORD_MS: i64 = 2_000;
/// Two Ctrl-C within this time are one.
pub(crate) const SAME_INTERRUPT: Duration = Duration::from_millis(300);
/// Longest line of an export of the audit trail, in bytes: the keyring, with at most a thousand versions.
pub(crate) const AUDIT_LINE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Jobs in one list.
pub(crate) const JOBS_MAX: i64 = 100;
/// Jobs that are looked at to find the commit that a rollback goes to: with the job itself and the list, twenty requests.
pub(crate) const ROLLBACK_JOBS_MAX: usize = 18;
/// Shortest beginning of a commit's id that stands for it, in characters.
pub(crate) const COMMIT_PREFIX_CHARS_MIN: usize = 7;
/// Seconds that one question for a release's health may take.
pub(crate) const HEALTH_SECONDS: u32 = 10;
/// How often a release is asked for its health before it is given up.
pub(crate) const HEALTH_ATTEMPTS: u32 = 5;
/// Seconds between two such questions.
pub(crate) const HEALTH_PAUSE_SECONDS: u32 = 2;

/// Bytes of a file's name, as Linux has it (`NAME_MAX`).
pub(crate) const FILE_NAME_BYTES_MAX: usize = 255;
