//! `signet keys rotate` and `signet keys revoke`: the key that the fleet believes.

use std::io::{self, Write};

use clap::Subcommand;
use serde::Deserialize;
use ureq::http::Method;

use crate::client::parsed;
use crate::context::Context;
use crate::exit::{Exit, Failure};

/// What is done with the fleet's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub(crate) enum KeysAction {
    /// Make a new key; hosts believe the one before until the next rotation
    Rotate,
    /// Make a new key, and have hosts believe no other: for a key that was stolen
    Revoke,
}

/// The newest keyring, and who holds it.
#[derive(Debug, Clone, Deserialize)]
struct Keyring {
    version: u64,
    fingerprint: String,
    previous: Option<String>,
    created_at: Option<String>,
    hosts: Vec<Holders>,
    behind: u64,
}

#[derive(Debug, Clone, Deserialize)]
struct Holders {
    version: u64,
    hosts: u64,
}

impl KeysAction {
    pub(crate) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let path = match self {
            Self::Rotate => "/api/keys/rotate",
            Self::Revoke => "/api/keys/revoke",
        };
        show(context, &context.client.send(&Method::POST, path, &[], None)?)
    }
}

fn show(context: &Context, answer: &serde_json::Value) -> Result<Exit, Failure> {
    if context.json() {
        return context.print_json(answer);
    }
    print(answer)?;
    Ok(Exit::Success)
}

/// Prints a keyring for people.
pub(crate) fn print(answer: &serde_json::Value) -> Result<(), Failure> {
    let keyring: Keyring = parsed(answer)?;
    let mut out = io::stdout().lock();
    let made = keyring.created_at.map(|at| format!(", made {at}")).unwrap_or_default();
    writeln!(out, "keyring:  version {}{made}", keyring.version)?;
    writeln!(out, "key:      {}", keyring.fingerprint)?;
    writeln!(out, "before:   {}", keyring.previous.as_deref().unwrap_or("none is believed"))?;
    for holders in &keyring.hosts {
        writeln!(out, "hosts:    {} with version {}", holders.hosts, holders.version)?;
    }
    if keyring.behind > 0 {
        writeln!(out, "{} behind: they get their work once they hold this version", keyring.behind)?;
    }
    Ok(())
}
