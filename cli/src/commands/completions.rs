//! `signet completions`.

use std::io::{self, Write};

use clap::Args;
use clap_complete::{Shell, generate};

use crate::exit::{Exit, Failure};

/// Print completions for a shell
///
/// For bash: `signet completions bash > ~/.local/share/bash-completion/completions/signet`.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    /// `all`: the whole command line.
    pub(crate) fn run(self, all: &mut clap::Command) -> Result<Exit, Failure> {
        // Into memory first: the generator panics when its writer fails.
        let mut text = Vec::new();
        generate(self.shell, all, "signet", &mut text);
        io::stdout().write_all(&text)?;
        Ok(Exit::Success)
    }
}
