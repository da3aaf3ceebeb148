//! What opens a repository.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use signet_common::deploy::{CredentialKind, GitUrl};
use signet_common::sshsig::{BadPrivateKey, private_key_fingerprint};

use super::model::About;
use crate::limits::{GIT_USER_CHARS_MAX, KNOWN_HOSTS_BYTES_MAX, SSH_SECRET_BYTES_MAX};
use crate::settings::Secret;

/// A secret with what goes with it. Never printed; written in clear only to be sealed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Credential {
    /// A private SSH key in OpenSSH's format, without a passphrase.
    DeployKey {
        /// The key, with its final line end.
        #[serde(serialize_with = "reveal", deserialize_with = "hide")]
        private_key: Secret,
        /// Lines of a `known_hosts` file: only these hosts are believed.
        known_hosts: Option<String>,
    },
    /// A token or password for HTTPS: one line.
    HttpsToken {
        /// The token.
        #[serde(serialize_with = "reveal", deserialize_with = "hide")]
        token: Secret,
        /// The user that goes with it; absent = `git`.
        username: Option<String>,
    },
}

fn reveal<S: Serializer>(secret: &Secret, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(secret.reveal())
}

fn hide<'de, D: Deserializer<'de>>(input: D) -> Result<Secret, D::Error> {
    String::deserialize(input).map(Secret::new)
}

impl Credential {
    /// Which kind.
    #[must_use]
    pub const fn kind(&self) -> CredentialKind {
        match self {
            Self::DeployKey { .. } => CredentialKind::DeployKey,
            Self::HttpsToken { .. } => CredentialKind::HttpsToken,
        }
    }

    /// The user that goes with a token.
    #[must_use]
    pub fn username(&self) -> Option<&str> {
        match self {
            Self::DeployKey { .. } => None,
            Self::HttpsToken { username, .. } => username.as_deref(),
        }
    }

    /// The hosts that a deploy key goes to.
    #[must_use]
    pub fn known_hosts(&self) -> Option<&str> {
        match self {
            Self::DeployKey { known_hosts, .. } => known_hosts.as_deref(),
            Self::HttpsToken { .. } => None,
        }
    }

    /// The secret itself.
    #[must_use]
    pub const fn secret(&self) -> &Secret {
        match self {
            Self::DeployKey { private_key, .. } => private_key,
            Self::HttpsToken { token, .. } => token,
        }
    }

    /// What may be shown of it.
    pub(super) fn about(&self) -> About {
        let fingerprint = match self {
            Self::DeployKey { private_key, .. } => private_key_fingerprint(private_key.reveal()).ok(),
            Self::HttpsToken { .. } => None,
        };
        About {
            kind: self.kind(),
            username: self.username().map(str::to_owned),
            fingerprint,
            known_hosts: self.known_hosts().map(str::to_owned),
        }
    }
}

/// A value, or what is wrong with it by field.
pub(super) type Checked<T> = Result<T, Vec<(String, String)>>;

/// Reads a credential for `repository` (or for what lies below it); `at` is its field's name. No text repeats a value.
///
/// # Errors
/// Each field that is wrong.
pub fn read(value: &Value, at: &str, repository: Option<&GitUrl>) -> Checked<Credential> {
    let Some(object) = value.as_object() else {
        return Err(vec![(at.to_owned(), "must be an object".into())]);
    };
    let mut reader = Reader { object, at, wrong: Vec::new() };
    let kind = match reader.text("kind", true) {
        Some("deploy_key") => Some(CredentialKind::DeployKey),
        Some("https_token") => Some(CredentialKind::HttpsToken),
        Some(_) => reader.bad("kind", "must be deploy_key or https_token"),
        None => None,
    };
    let Some(kind) = kind else { return Err(reader.wrong) };
    if repository.is_some_and(|url| !kind.fits(url)) {
        reader.wrong(
            "kind",
            "a deploy_key goes with SSH, an https_token with https:// (and http:// on loopback)",
        );
    }
    let found = match kind {
        CredentialKind::DeployKey => reader.deploy_key(),
        CredentialKind::HttpsToken => reader.https_token(),
    };
    match found {
        Some(found) if reader.wrong.is_empty() => Ok(found),
        _ => Err(reader.wrong),
    }
}

struct Reader<'a> {
    object: &'a Map<String, Value>,
    at: &'a str,
    wrong: Vec<(String, String)>,
}

impl<'a> Reader<'a> {
    fn wrong(&mut self, name: &str, why: &str) {
        self.wrong.push((format!("{}.{name}", self.at), why.to_owned()));
    }

    fn bad<T>(&mut self, name: &str, why: &str) -> Option<T> {
        self.wrong(name, why);
        None
    }

    /// A text that is not empty.
    fn text(&mut self, name: &str, needed: bool) -> Option<&'a str> {
        match self.object.get(name) {
            Some(Value::String(text)) if !text.is_empty() => Some(text),
            None | Some(Value::Null) if !needed => None,
            // An empty file, where there should have been something.
            Some(Value::String(_)) if !needed => self.bad(name, "must not be empty"),
            None | Some(Value::Null | Value::String(_)) => self.bad(name, "required"),
            Some(_) => self.bad(name, "must be a string"),
        }
    }

    /// Nothing but these fields: what is misspelt would be missed.
    fn only(&mut self, names: [&str; 2]) {
        let other = |name: &&String| *name != "kind" && !names.contains(&name.as_str());
        for name in self.object.keys().filter(other).take(FIELDS_SHOWN_MAX) {
            let why = match name.as_str() {
                "passphrase" => "a deploy key must have no passphrase: nobody is there to type it",
                _ => "is not known for this kind",
            };
            let shown = if name.len() > FIELD_BYTES_MAX { "(long name)" } else { name };
            self.wrong(shown, why);
        }
    }

    fn deploy_key(&mut self) -> Option<Credential> {
        self.only(["private_key", "known_hosts"]);
        let known_hosts = self.text("known_hosts", false).map(|text| text.replace("\r\n", "\n"));
        if let Some(why) = known_hosts.as_deref().and_then(bad_known_hosts) {
            self.wrong("known_hosts", &why);
        }
        let text = self.text("private_key", true)?;
        if text.len() > SSH_SECRET_BYTES_MAX {
            return self.bad("private_key", "is too long");
        }
        let key = format!("{}\n", text.replace("\r\n", "\n").trim());
        match private_key_fingerprint(&key) {
            Ok(_) => Some(Credential::DeployKey { private_key: Secret::new(key), known_hosts }),
            Err(BadPrivateKey::Locked) => self.bad(
                "private_key",
                "has a passphrase, and nobody is there to type it: `ssh-keygen -p -N ''` takes it off a copy",
            ),
            Err(BadPrivateKey::Malformed) => self.bad(
                "private_key",
                "must be a private key in OpenSSH's own format: `ssh-keygen -p -N ''` writes one",
            ),
        }
    }

    fn https_token(&mut self) -> Option<Credential> {
        self.only(["token", "username"]);
        let username = self.text("username", false);
        let long = |name: &str| name.chars().count() > GIT_USER_CHARS_MAX;
        if username.is_some_and(|name| name.chars().any(char::is_control) || long(name)) {
            self.wrong("username", "must be the name of a user");
        }
        let token = self.text("token", true)?;
        if token.chars().any(char::is_control) || token.len() > SSH_SECRET_BYTES_MAX {
            return self.bad("token", "must be one line, and not too long");
        }
        Some(Credential::HttpsToken { token: Secret::new(token), username: username.map(str::to_owned) })
    }
}

/// Fields that are not known and are named in an answer, and how long such a name may be.
const FIELDS_SHOWN_MAX: usize = 10;
const FIELD_BYTES_MAX: usize = 64;

fn bad_known_hosts(text: &str) -> Option<String> {
    if text.len() > KNOWN_HOSTS_BYTES_MAX {
        return Some(format!("must have at most {KNOWN_HOSTS_BYTES_MAX} bytes"));
    }
    let entries = || text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let bad = |line: &str| {
        line.split_whitespace().count() < 3 || line.contains(|c: char| c.is_control() && c != '\t')
    };
    (entries().next().is_none() || entries().any(bad))
        .then(|| "must be lines of a known_hosts file, as `ssh-keyscan` prints them".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use signet_testkit::ssh::SshKey;

    fn wrong(value: &Value, url: &str) -> Vec<(String, String)> {
        read(value, "credential", Some(&url.parse().unwrap())).unwrap_err()
    }

    #[test]
    fn each_kind_goes_where_it_fits() {
        let token = json!({ "kind": "https_token", "token": "t0ken", "username": "ci" });
        let found = read(&token, "c", Some(&"https://h/x".parse().unwrap())).unwrap();
        assert_eq!((found.username(), found.secret().reveal()), (Some("ci"), "t0ken"));
        assert!(!format!("{found:?}").contains("t0ken"));
        let back: Credential = serde_json::from_str(&serde_json::to_string(&found).unwrap()).unwrap();
        assert_eq!(back.secret(), found.secret());
        for url in ["git@h:x", "http://h/x", "ssh://h/x", "git://h/x", "file:///x"] {
            assert_eq!(wrong(&token, url)[0].0, "credential.kind", "{url}");
        }
        assert!(read(&token, "c", Some(&"http://127.0.0.1:1/x".parse().unwrap())).is_ok());
        let dir = tempfile::tempdir().unwrap();
        let key = SshKey::ed25519(dir.path(), "k").private().replace('\n', "\r\n");
        let key = json!({ "kind": "deploy_key", "private_key": key, "known_hosts": "h ssh-ed25519 AAAA" });
        let found = read(&key, "c", Some(&"git@h:x".parse().unwrap())).unwrap();
        assert!(found.secret().reveal().ends_with("-----END OPENSSH PRIVATE KEY-----\n"));
        assert!(found.about().fingerprint.is_some_and(|text| text.starts_with("SHA256:")));
        assert_eq!(wrong(&key, "https://h/x")[0].0, "credential.kind");
    }

    #[test]
    fn what_is_wrong_is_named_and_never_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let locked = SshKey::locked(dir.path(), "k", "phrase").private();
        let all = [
            (json!("secret-text"), "credential"),
            (json!({}), "credential.kind"),
            (json!({ "kind": "secret-text" }), "credential.kind"),
            (json!({ "kind": "https_token" }), "credential.token"),
            (json!({ "kind": "https_token", "token": "secret-text\nx" }), "credential.token"),
            (json!({ "kind": "https_token", "token": 7 }), "credential.token"),
            (json!({ "kind": "https_token", "token": "t", "username": "a\nb" }), "credential.username"),
            (json!({ "kind": "https_token", "token": "t", "known_hosts": "x" }), "credential.known_hosts"),
        ];
        for (value, field) in all {
            let wrong = wrong(&value, "https://h/x");
            assert_eq!(wrong.len(), 1, "{value}: {wrong:?}");
            assert_eq!(wrong[0].0, field, "{value}");
            assert!(!wrong[0].1.contains("secret-text"));
        }
        let all = [
            (json!({ "kind": "deploy_key", "private_key": locked }), "passphrase"),
            (json!({ "kind": "deploy_key", "private_key": "secret-text" }), "OpenSSH"),
            (json!({ "kind": "deploy_key", "private_key": "x", "passphrase": "secret-text" }), "passphrase"),
        ];
        for (value, text) in all {
            let wrong = wrong(&value, "git@h:x");
            assert!(wrong.iter().any(|(_, why)| why.contains(text)), "{wrong:?}");
            assert!(!wrong.iter().any(|(_, why)| why.contains("secret-text")));
        }
        let both = json!({ "kind": "deploy_key", "known_hosts": "nothing" });
        let fields: Vec<String> = wrong(&both, "git@h:x").into_iter().map(|(field, _)| field).collect();
        assert_eq!(fields, ["credential.known_hosts", "credential.private_key"]);
    }
}
