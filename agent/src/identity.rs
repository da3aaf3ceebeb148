//! Who this agent is, and whom it believes: the files of the data directory beside the journal.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use signet_common::envelope::DsseJson;
use signet_common::ids::{Hostname, KeyId};
use signet_common::keyring::{Keyring, KeyringBody};
use signet_common::keys::{KeyError, PublicKey, SigningKey};
use signet_common::seal::SealingKey;

use crate::journal::{old_logs, replace};

/// Why the data directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file system says no.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Another agent uses it.
    #[error("{0} is used by another agent that is running")]
    InUse(String),
    /// A file holds something else.
    #[error("{path}: {why}")]
    Content {
        /// Which file.
        path: String,
        /// Why.
        why: String,
    },
    /// The cryptographic library failed.
    #[error(transparent)]
    Key(#[from] KeyError),
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.display().to_string();
    |source| IdentityError::Io { path, source }
}

fn content(path: &Path, why: impl ToString) -> IdentityError {
    IdentityError::Content { path: path.display().to_string(), why: why.to_string() }
}

/// What later starts need, so that they need nothing but the data directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    /// The controller's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<String>,
    /// This host's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Hostname>,
    /// The group asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The controller's key by its fingerprint, from a join token or a key file; needed until there is a keyring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<KeyId>,
}

/// The agent's own directory, locked against a second agent for as long as this lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: Flock<File>,
}

impl DataDir {
    /// Makes the directory (0700) if needed and locks it.
    ///
    /// # Errors
    /// When it can't be made or another agent has it.
    pub fn open(path: &Path) -> Result<Self, IdentityError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error(path))?;
        let lock = path.join("lock");
        let file = File::options().create(true).truncate(false).write(true).open(&lock);
        let lock = Flock::lock(file.map_err(io_error(&lock))?, FlockArg::LockExclusiveNonblock)
            .map_err(|_| IdentityError::InUse(path.display().to_string()))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The agent's key, made (0600) when there is none.
    ///
    /// # Errors
    /// When the file can't be read or written, or holds something else.
    pub fn key(&self) -> Result<SigningKey, IdentityError> {
        if let Some(key) = read_key(&self.path)? {
            return Ok(key);
        }
        let path = key_path(&self.path);
        let key = SigningKey::generate()?;
        replace(&path, key.to_pem()?.as_bytes()).map_err(io_error(&path))?;
        tracing::info!(agent = %key.public().agent_id(), "a new key was made");
        Ok(key)
    }

    /// Notes what later starts need.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn enrol(&self, enrolment: &Enrolment) -> Result<(), IdentityError> {
        let path = enrolment_path(&self.path);
        if read_enrolment(&self.path).ok().as_ref() == Some(enrolment) {
            return Ok(());
        }
        let text = toml::to_string(enrolment).map_err(|e| content(&path, e))?;
        replace(&path, text.as_bytes()).map_err(io_error(&path))
    }

    /// The newest keyring that was believed.
    ///
    /// # Errors
    /// When the file can't be read or holds something else.
    pub fn keyring(&self) -> Result<Option<Keyring>, IdentityError> {
        let path = self.path.join("keyring.json");
        let Some(text) = read(&path)? else { return Ok(None) };
        let signed: DsseJson = serde_json::from_str(&text).map_err(|e| content(&path, e))?;
        // It was believed when it was written, and only the agent can write here.
        let fingerprint = own_fingerprint(&signed).ok_or_else(|| content(&path, "not a keyring"))?;
        Keyring::trust_first(&signed, &fingerprint).map(Some).map_err(|e| content(&path, e))
    }

    /// Keeps the newest keyring.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn keep_keyring(&self, signed: &DsseJson) -> Result<(), IdentityError> {
        let path = self.path.join("keyring.json");
        let text = serde_json::to_vec(signed).map_err(|e| content(&path, e))?;
        replace(&path, &text).map_err(io_error(&path))
    }

    /// Believes this controller key from now on, and no keyring before the one that it signed.
    ///
    /// # Errors
    /// When the files can't be changed.
    pub fn trust(&self, key: &PublicKey) -> Result<(), IdentityError> {
        let enrolment = Enrolment { fingerprint: Some(key.id().clone()), ..read_enrolment(&self.path)? };
        self.enrol(&enrolment)?;
        remove(&self.path.join("keyring.json"))
    }

    /// Forgets the key and the journal: the next start is a new agent.
    ///
    /// # Errors
    /// When the files can't be removed.
    pub fn reset(&self) -> Result<(), IdentityError> {
        // The key last: a new agent must not begin with another's journal.
        let journal = self.path.join("journal");
        match fs::remove_dir_all(&journal) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error(&journal)(e)),
            _ => remove(&key_path(&self.path)),
        }
    }

    /// Forgets everything that makes this an agent: settings, whom it believes, journals, and at last the key.
    ///
    /// # Errors
    /// When the files can't be removed.
    pub fn forget(&self) -> Result<(), IdentityError> {
        for old in old_logs(&self.path).map_err(io_error(&self.path))? {
            fs::remove_dir_all(&old).map_err(io_error(&old))?;
        }
        for file in ["reserve", "keyring.json"] {
            remove(&self.path.join(file))?;
        }
        remove(&enrolment_path(&self.path))?;
        self.reset()
    }

    /// Whether a log that was set aside lies beside the journal.
    ///
    /// # Errors
    /// When the directory can't be read.
    pub fn has_old_log(&self) -> Result<bool, IdentityError> {
        old_logs(&self.path).map(|old| !old.is_empty()).map_err(io_error(&self.path))
    }

    /// The key to which secrets for this log are sealed, made with the log.
    ///
    /// # Errors
    /// When the file can't be read or written, or holds something else.
    pub fn sealing_key(&self) -> Result<SealingKey, IdentityError> {
        let path = self.path.join("journal").join("sealing.key");
        if let Some(text) = read(&path)? {
            return SealingKey::from_stored(text.trim()).map_err(|e| content(&path, e));
        }
        let key = SealingKey::generate().map_err(|e| content(&path, e))?;
        replace(&path, key.to_stored().as_bytes()).map_err(io_error(&path))?;
        Ok(key)
    }
}

/// The fingerprint of the key that a keyring itself names as current: what trust on first use believes.
#[must_use]
pub fn own_fingerprint(signed: &DsseJson) -> Option<KeyId> {
    let body: KeyringBody = serde_json::from_slice(&signed.envelope().ok()?.body).ok()?;
    Some(PublicKey::from_pem(&body.current).ok()?.id().clone())
}

/// Reads the enrolment; empty when there is none yet.
///
/// # Errors
/// When the file can't be read or has an unknown key.
pub fn read_enrolment(data_dir: &Path) -> Result<Enrolment, IdentityError> {
    let path = enrolment_path(data_dir);
    match read(&path)? {
        Some(text) => toml::from_str(&text).map_err(|e| content(&path, e)),
        None => Ok(Enrolment::default()),
    }
}

/// Reads the agent's key, if it has one. Needs no lock.
///
/// # Errors
/// When the file can't be read, may be read by others, or holds something else.
pub fn read_key(data_dir: &Path) -> Result<Option<SigningKey>, IdentityError> {
    let path = key_path(data_dir);
    let Some(text) = read(&path)? else { return Ok(None) };
    let mode = fs::metadata(&path).map_err(io_error(&path))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(content(
            &path,
            format!("mode {:o}: only its owner may read it (chmod 600)", mode & 0o777),
        ));
    }
    SigningKey::from_pem(&text).map(Some).map_err(|e| content(&path, e))
}

fn key_path(data_dir: &Path) -> PathBuf {
    data_dir.join("agent.key")
}

fn enrolment_path(data_dir: &Path) -> PathBuf {
    data_dir.join("enrolment.toml")
}

fn read(path: &Path) -> Result<Option<String>, IdentityError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io_error(path)(e)),
    }
}

fn remove(path: &Path) -> Result<(), IdentityError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error(path)(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_directory_is_one_agent() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("agent");
        let dir = DataDir::open(&path).unwrap();
        assert!(matches!(DataDir::open(&path), Err(IdentityError::InUse(_))));
        let id = dir.key().unwrap().public().id().clone();
        assert_eq!(fs::metadata(path.join("agent.key")).unwrap().permissions().mode() & 0o777, 0o600);
        drop(dir);
        let dir = DataDir::open(&path).unwrap();
        assert_eq!(dir.key().unwrap().public().id(), &id);
        dir.reset().unwrap();
        assert_ne!(dir.key().unwrap().public().id(), &id);
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::open(root.path()).unwrap();
        dir.key().unwrap();
        fs::set_permissions(root.path().join("agent.key"), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(dir.key().is_err());
    }

    #[test]
    fn keyring_and_enrolment_read_back_and_trust_forgets_the_keyring() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::open(root.path()).unwrap();
        let key = SigningKey::generate().unwrap();
        let (keyring, signed) = Keyring::first(&key, 1).unwrap();
        assert_eq!(dir.keyring().unwrap(), None);
        dir.keep_keyring(&signed).unwrap();
        assert_eq!(dir.keyring().unwrap(), Some(keyring));
        let enrolment = Enrolment { controller: Some("http://127.0.0.1:1".into()), ..Enrolment::default() };
        dir.enrol(&enrolment).unwrap();
        assert_eq!(read_enrolment(root.path()).unwrap(), enrolment);
        dir.trust(key.public()).unwrap();
        assert_eq!(dir.keyring().unwrap(), None);
        assert_eq!(read_enrolment(root.path()).unwrap().fingerprint.as_ref(), Some(key.public().id()));
        fs::write(root.path().join("enrolment.toml"), "other = 1").unwrap();
        assert!(read_enrolment(root.path()).is_err());
    }
}
