//! What real parts the tests had, told to `scripts/test`: a test that goes without one passes, and must not count.

use std::fs::OpenOptions;
use std::io::Write as _;

/// Names the file to which it is told; without it nobody asks.
const FILE: &str = "SIGNET_TEST_RAN";

/// This test did it with a real part: `sshd`, for example. Told as often as it is true.
///
/// # Panics
/// When the file cannot be written.
pub fn ran(part: &str) {
    tell("ran", part);
}

/// This test does without a real part, and shows nothing of it.
///
/// # Panics
/// When the file cannot be written.
pub fn not_ran(part: &str) {
    tell("not", part);
}

/// Each test is a process of its own, so that its id is the test.
fn tell(how: &str, part: &str) {
    let Some(file) = std::env::var_os(FILE) else { return };
    let mut file = OpenOptions::new().create(true).append(true).open(file).expect("the file can be written");
    file.write_all(format!("{how} {part} {}\n", std::process::id()).as_bytes()).expect("a line is written");
}
