//! What a driver writes for the job's log.

use std::io::{self, Write as _};

use super::plan::Fault;

/// A line for the log.
pub(super) fn say(line: &str) {
    // Nobody listens any more only when the agent is gone, and then this ends as well.
    writeln!(io::stdout(), "{line}").ok();
}

/// Why it does not work out.
pub(super) fn complain(fault: &Fault) {
    writeln!(io::stderr(), "{fault}").ok();
}
