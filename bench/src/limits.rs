//! Every bound and size of the benches, by name.

use std::time::Duration;

/// Primes in the pool: 102 × 101 / 2 = 5,151 keys.
pub(crate) const PRIMES: usize = 102;
/// Bits of one prime; a key has twice as many.
pub(crate) const PRIME_BITS: u64 = 1_536;
/// Commands of one run that are timed one after another.
pub(crate) const POSTS: usize = 100;
/// Commands before each run, so that nothing is timed for the first time.
pub(crate) const POSTS_WARM_UP: usize = 20;
/// Commands of one run that are posted as fast as it goes.
pub(crate) const COMMANDS: usize = 1_500;
/// Connections over which they are posted.
pub(crate) const POSTERS: usize = 8;
/// Simulated hosts of one command to all.
pub(crate) const FAN_OUT_AGENTS: usize = 1_000;
/// Simulated hosts that only say that they live.
pub(crate) const HEARTBEAT_AGENTS: usize = 5_000;
/// Simulated hosts that share one connection to the broker; each has a channel of its own on it.
pub(crate) const AGENTS_PER_CONNECTION: usize = 250;
/// Hellos that are said at the same time.
pub(crate) const HELLOS: usize = 16;
/// Messages that the broker hands to a simulated host at once.
pub(crate) const PREFETCH: u16 = 64;
/// How long anything may take before a bench gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// Pause between two looks at a condition that is not timed.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Pause between two looks at how many results are stored, and between two at one task's results.
pub(crate) const STORED_EVERY: Duration = Duration::from_millis(1);
/// What has just started is left alone for this long before its idling is measured: a heartbeat and a half.
pub(crate) const SETTLE: Duration = Duration::from_secs(15);
/// How long a program may take to stop before it is killed.
pub(crate) const STOP_MAX: Duration = Duration::from_secs(20);
/// Pause between two looks whether it has stopped.
pub(crate) const STOPPED_EVERY: Duration = Duration::from_millis(5);
/// Credentials of one run that are looked at one after another.
pub(crate) const ACCESSES: usize = 2_000;
/// Refused log-ins of one run.
pub(crate) const LOG_INS: usize = 20;
/// Hosts of one deployment.
pub(crate) const DEPLOY_HOSTS: usize = 10;
/// Files of the repository that is deployed, of `DEPLOY_FILE_BYTES` each: 20 MB.
pub(crate) const DEPLOY_FILES: usize = 4_000;
/// Bytes of one of these.
pub(crate) const DEPLOY_FILE_BYTES: usize = 5_000;
/// Files in one of its directories.
pub(crate) const DEPLOY_DIRECTORY_FILES: usize = 50;
/// Commits after the first one.
pub(crate) const DEPLOY_COMMITS: usize = 20;
/// Files that each of these changes.
pub(crate) const DEPLOY_COMMIT_FILES: usize = 20;
/// How long one job may take.
pub(crate) const JOB_PATIENCE: Duration = Duration::from_secs(600);
/// What a deployment leaves to do, such as a look at the tree, is over after this long.
pub(crate) const DEPLOY_REST: Duration = Duration::from_secs(2);
