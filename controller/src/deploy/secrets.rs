//! How a job logs in, at hosts and at its repository: in memory, in files for its run, and sealed at rest. Never in a log, an answer or an argument.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};
use crate::keys::Keys;
use crate::repositories::Credential;
use crate::settings::Secret;

/// Everything that a job holds in confidence.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Secrets {
    /// Of its targets over SSH, in their order.
    pub(super) logins: Vec<Login>,
    /// What opens its repository, with the address of that.
    pub(super) credential: Option<(String, Credential)>,
}

impl Secrets {
    /// What opens this repository: a credential goes to the address that it was given for, and nowhere else.
    pub(super) fn credential_for(&self, repository: &str) -> Option<&Credential> {
        self.credential.as_ref().filter(|(url, _)| url == repository).map(|(_, credential)| credential)
    }
}

/// As they were sealed.
#[derive(Deserialize)]
#[serde(untagged)]
enum Kept {
    /// By a controller of before there were credentials.
    Logins(Vec<Login>),
    /// All of them.
    All { logins: Vec<Login>, credential: Option<(String, Credential)> },
}

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

/// Seals a job's secrets; only this installation can open them, and only as this job's.
pub(super) fn seal(keys: &Keys, job: i64, secrets: &Secrets) -> Result<Vec<u8>> {
    let text = serde_json::to_vec(secrets).map_err(|e| Error::Internal(e.to_string()))?;
    keys.master().seal(&name(job), &text).map_err(|e| Error::Internal(e.to_string()))
}

/// Opens them.
pub(super) fn open(keys: &Keys, job: i64, sealed: &[u8]) -> Result<Secrets> {
    let text = keys.master().open(&name(job), sealed).map_err(|e| Error::Internal(e.to_string()))?;
    match serde_json::from_slice(&text) {
        Ok(Kept::Logins(logins)) => Ok(Secrets { logins, credential: None }),
        Ok(Kept::All { logins, credential }) => Ok(Secrets { logins, credential }),
        Err(_) => Err(Error::Internal("a job's log-ins can't be read".into())),
    }
}

/// Of a credential, what must not be seen in a log.
pub(super) fn credential_telltales(credential: &Credential) -> Vec<String> {
    let secret = credential.secret().reveal();
    told(secret.lines().filter(|line| !line.starts_with("-----")).map(str::to_owned).collect())
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
    told(found)
}

/// Those that are long enough, a longer one first: it may hold a shorter one.
fn told(mut found: Vec<String>) -> Vec<String> {
    found.retain(|text| text.len() >= crate::limits::TELLTALE_BYTES_MIN);
    found.sort_by_key(|text| std::cmp::Reverse(text.len()));
    found.dedup();
    found
}
