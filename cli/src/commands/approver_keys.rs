//! `signet approver-keys`: the SSH keys with which accounts sign approvals.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::Method;

use crate::client::{parsed, part};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::table::{self, looking, plain};
use crate::term::Look;

/// List the SSH keys that sign your approvals, register one, or remove one
///
/// Hosts count signatures by the keys in their own list of allowed signers; the controller counts those by keys that are
/// registered here. An admin sees everybody's.
#[derive(Debug, Args)]
pub(crate) struct ApproverKeys {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Register a public key of yours
    Add {
        /// Such as ~/.ssh/id_ed25519.pub
        file: String,
    },
    /// Remove a key: what was signed with it counts no more for what still waits
    Remove {
        /// The key's id in the list
        id: String,
    },
}

#[derive(Debug, Deserialize)]
struct Key {
    id: String,
    username: String,
    fingerprint: String,
    comment: String,
    created_at: String,
}

impl ApproverKeys {
    pub(crate) fn run(self, context: &Context) -> Result<Exit, Failure> {
        match self.action {
            None => list(context),
            Some(Action::Add { file }) => {
                let line =
                    std::fs::read_to_string(&file).map_err(|e| Failure::Usage(format!("{file}: {e}")))?;
                if line.contains("PRIVATE KEY") {
                    return Err(Failure::Usage(format!("{file}: this is the private key; give its .pub")));
                }
                let body = json!({ "public_key": line.trim() });
                let answer = context.client.send(&Method::POST, "/api/approver-keys", &[], Some(&body))?;
                if context.json() {
                    return context.print_json(&answer);
                }
                let key: Key = parsed(&answer)?;
                writeln!(io::stdout(), "{} signs approvals of {}", key.fingerprint, key.username)?;
                Ok(Exit::Success)
            }
            Some(Action::Remove { id }) => {
                let path = format!("/api/approver-keys/{}", part(&id));
                context.client.send(&Method::DELETE, &path, &[], None)?;
                if !context.json() {
                    writeln!(io::stdout(), "{id} is removed")?;
                }
                Ok(Exit::Success)
            }
        }
    }
}

fn list(context: &Context) -> Result<Exit, Failure> {
    let keys = context.all("/api/approver-keys")?;
    if context.json() {
        return context.print_json(&Value::Array(keys));
    }
    let mut rows = Vec::new();
    for key in &keys {
        let key: Key = parsed(key)?;
        rows.push(vec![
            plain(key.id),
            looking(Look::Bold, key.username),
            plain(key.fingerprint),
            plain(key.comment),
            plain(key.created_at),
        ]);
    }
    table::print(context.term, &["ID", "ACCOUNT", "FINGERPRINT", "COMMENT", "SINCE"], rows)?;
    Ok(Exit::Success)
}
