//! The launcher: the own binary, executed again as something tiny that becomes a command.

/// Becomes the launcher when this process was started as one, and does not return then. The first statement of
/// `main`, before any thread or runtime exists.
pub fn main_if_launcher() {}
