//! `signet keys`: whose keys count, and the rotation of the fleet's own.

use std::io::{self, Write};

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};
use signet_common::PublicKey;

use super::keys_rotation::{self, KeysAction};
use crate::client::{ClientError, parsed};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::table::{self, looking, plain};
use crate::term::Look;

/// List the fleet's key and each host's accepted one with their fingerprints, or replace the fleet's
///
/// The fingerprints are computed here from the keys themselves.
#[derive(Debug, Args)]
pub(crate) struct Keys {
    #[command(subcommand)]
    action: Option<KeysAction>,
}

#[derive(Debug, Deserialize)]
struct HostKey {
    hostname: String,
    public_key_pem: String,
    updated_at: String,
}

impl Keys {
    pub(crate) fn run(self, context: &Context) -> Result<Exit, Failure> {
        if let Some(action) = self.action {
            return action.run(context);
        }
        let pem = context.client.text("/api/agents/controller-key")?.unwrap_or_default();
        let controller = fingerprint(&pem)?;
        let keyring = context.client.get("/api/keys")?;
        let mut hosts = context.all("/api/client-keys")?;
        if context.json() {
            for host in &mut hosts {
                let key: HostKey = parsed(host)?;
                host["fingerprint"] = Value::from(fingerprint(&key.public_key_pem)?);
            }
            return context
                .print_json(&json!({"controller": controller, "keyring": keyring, "hosts": hosts}));
        }
        // The fingerprint that was computed here stands beside the one that the controller names.
        writeln!(io::stdout(), "controller: {controller}")?;
        keys_rotation::print(&keyring)?;
        let mut rows = Vec::new();
        for host in &hosts {
            let key: HostKey = parsed(host)?;
            rows.push(vec![
                looking(Look::Bold, key.hostname),
                plain(key.updated_at),
                plain(fingerprint(&key.public_key_pem)?),
            ]);
        }
        table::print(context.term, &["HOST", "SINCE", "FINGERPRINT"], rows)?;
        Ok(Exit::Success)
    }
}

/// SHA-256 of the key in hex, as `signet-agent` and openssl compute it too.
pub(super) fn fingerprint(pem: &str) -> Result<String, ClientError> {
    let key = PublicKey::from_pem(pem).map_err(|e| ClientError::Malformed(format!("a public key: {e}")))?;
    Ok(key.id().to_string())
}
