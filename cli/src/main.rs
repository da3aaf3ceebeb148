//! `signet`: the command line, and `signet up`.

mod api;
mod args;
mod client;
mod commands;
mod context;
mod exit;
mod fold;
mod follow;
mod interrupt;
mod limits;
mod sse;
mod ssh;
mod table;
mod term;
mod text;
mod view;

use std::process::ExitCode;

use clap::Parser as _;

use crate::term::{Look, Term};

fn main() -> ExitCode {
    // Commands of the agent inside `signet up` start through this very program; see signet_agent::launch.
    signet_agent::launch::main_if_launcher();
    signet_agent::deploy::main_if_driver();
    match args::CommandLine::parse().run() {
        Ok(exit) => exit.into(),
        Err(failure) => {
            let (code, tell) = failure.code();
            if tell {
                Term::detect().say(Look::Bad, &format!("signet: {failure}"));
            }
            ExitCode::from(code)
        }
    }
}
