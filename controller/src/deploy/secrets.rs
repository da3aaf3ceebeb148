//! How a job logs in: in memory, in files for its run, and sealed at rest. Never in a log, an answer or an argument.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};
use crate::keys::Keys;
use crate::settings::Secret;

/// One target over SSH.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Login {
    /// Address or name.
    pub(super) host: String,
    /// Where it listens.
    pub(super) port: u16,
    /// Who logs in.
    pub(super) username: String,
    /// With what.
    pub(super) auth: Auth,
}

/// What opens the door.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Auth {
    /// A key, in PEM with its final line end.
    PrivateKey {
        /// The key.
        #[serde(serialize_with = "reveal", deserialize_with = "hide")]
        private_key: Secret,
        /// What opens the key.
        #[serde(serialize_with = "reveal_some", deserialize_with = "hide_some")]
        passphrase: Option<Secret>,
    },
    /// A password.
    Password {
        /// The password.
        #[serde(serialize_with = "reveal", deserialize_with = "hide")]
        password: Secret,
    },
}

fn reveal<S: Serializer>(secret: &Secret, out: S) -> std::result::Result<S::Ok, S::Error> {
    out.serialize_str(secret.reveal())
}

fn hide<'de, D: Deserializer<'de>>(input: D) -> std::result::Result<Secret, D::Error> {
    String::deserialize(input).map(Secret::new)
}

fn reveal_some<S: Serializer>(secret: &Option<Secret>, out: S) -> std::result::Result<S::Ok, S::Error> {
    secret.as_ref().map(Secret::reveal).serialize(out)
}

fn hide_some<'de, D: Deserializer<'de>>(input: D) -> std::result::Result<Option<Secret>, D::Error> {
    Option::<String>::deserialize(input).map(|text| text.map(Secret::new))
}

fn name(job: i64) -> String {
    format!("job-logins.{job}")
}

/// Seals a job's log-ins; only this installation can open them, and only as this job's.
pub(super) fn seal(keys: &Keys, job: i64, logins: &[Login]) -> Result<Vec<u8>> {
    let text = serde_json::to_vec(logins).map_err(|e| Error::Internal(e.to_string()))?;
    keys.master().seal(&name(job), &text).map_err(|e| Error::Internal(e.to_string()))
}

/// Opens them.
pub(super) fn open(keys: &Keys, job: i64, sealed: &[u8]) -> Result<Vec<Login>> {
    let text = keys.master().open(&name(job), sealed).map_err(|e| Error::Internal(e.to_string()))?;
    serde_json::from_slice(&text).map_err(|_| Error::Internal("a job's log-ins can't be read".into()))
}

/// What must not be seen in a log: every secret of these log-ins that is long enough to be told from other text.
pub(super) fn telltales(logins: &[Login]) -> Vec<String> {
    let mut found = Vec::new();
    for login in logins {
        match &login.auth {
            Auth::Password { password } => found.push(password.reveal().to_owned()),
            Auth::PrivateKey { private_key, passphrase } => {
                found.extend(passphrase.as_ref().map(|p| p.reveal().to_owned()));
                let lines = private_key.reveal().lines().filter(|line| !line.starts_with("-----"));
                found.extend(lines.map(str::to_owned));
            }
        }
    }
    found.retain(|text| text.len() >= crate::limits::TELLTALE_BYTES_MIN);
    // A longer one first: it may hold a shorter one.
    found.sort_by_key(|text| std::cmp::Reverse(text.len()));
    found.dedup();
    found
}
