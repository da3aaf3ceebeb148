//! What standard output and standard error are, and how text on them may look.

use std::io::{self, IsTerminal as _, Write};

use crate::text::visible;

/// A look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// As it is.
    Plain,
    /// Well.
    Good,
    /// Look here.
    Warn,
    /// Not well.
    Bad,
    /// Less important.
    Dim,
    /// A heading.
    Bold,
}

/// Where output goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Term {
    /// Standard output is a terminal.
    pub stdout: bool,
    /// Standard error is a terminal.
    pub stderr: bool,
    /// Colours are wanted where there is a terminal.
    pub colour: bool,
}

impl Term {
    /// As this process was started; `NO_COLOR` (<https://no-color.org>) and a dumb terminal mean no colour.
    pub(crate) fn detect() -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|v| v == "dumb");
        Self {
            stdout: io::stdout().is_terminal(),
            stderr: io::stderr().is_terminal(),
            colour: !no_colour && !dumb,
        }
    }

    /// Colours on standard output.
    pub(crate) fn colours(self) -> bool {
        self.colour && self.stdout
    }

    /// Text for standard output.
    pub(crate) fn paint(self, look: Look, text: &str) -> String {
        painted(self.colours(), look, text)
    }

    /// Text for standard error.
    pub(crate) fn paint_err(self, look: Look, text: &str) -> String {
        painted(self.colour && self.stderr, look, text)
    }

    /// A command's bytes for standard output: as they are into a file or pipe, harmless on a terminal.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Vec<u8> {
        if self.stdout { visible(bytes).into_bytes() } else { bytes.to_vec() }
    }

    /// A line on standard error that stands out.
    pub(crate) fn warn(self, text: &str) {
        self.say(Look::Warn, &format!("warning: {text}"));
    }

    /// Says something on standard error. That nobody can read it is no reason to end.
    pub(crate) fn say(self, look: Look, text: &str) {
        let text = self.paint_err(look, visible(text.as_bytes()).trim_end());
        writeln!(io::stderr(), "{text}").ok();
    }
}

fn painted(colour: bool, look: Look, text: &str) -> String {
    let code = match look {
        Look::Good => "32",
        Look::Warn => "33",
        Look::Bad => "31",
        Look::Dim => "2",
        Look::Bold => "1",
        Look::Plain => return text.to_owned(),
    };
    if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// How the state of a target or host looks.
pub(crate) fn state_look(state: &str) -> Look {
    match state {
        "succeeded" | "online" | "done" | "approved" => Look::Good,
        "failed" | "timed_out" | "lost" | "interrupted" | "rejected" | "refused" | "revoked"
        | "set_aside" => Look::Bad,
        "expired" | "cancelled" | "pending" | "catching_up" | "awaiting" | "awaiting_approval" => Look::Warn,
        "offline" | "replaced" | "ended" => Look::Dim,
        _ => Look::Plain,
    }
}
