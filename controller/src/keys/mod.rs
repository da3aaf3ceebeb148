//! The installation's keys: the master key seals every secret at rest; the fleet's signing key and its keyring lie in the
//! database.

mod files;
mod master;
mod named;
mod store;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use signet_common::SigningKey;
use signet_common::envelope::DsseJson;
use signet_common::keyring::{Keyring, KeyringError};
use signet_common::time::Micros;

pub use files::{create_or_read, write_private};
pub use master::{MasterKey, WrongMasterKey};
pub use store::ALL as STATEMENTS;

use crate::error::Error;
use crate::limits::RETRY_AFTER_SECONDS;
use crate::store::{Store, StoreError, in_transaction};

/// What the controller signs with, once the database is there. Cheap to clone.
#[derive(Clone)]
pub struct Keys {
    master: MasterKey,
    loaded: Arc<OnceLock<Loaded>>,
}

struct Loaded {
    signing: SigningKey,
    keyring: Keyring,
    chain: Vec<DsseJson>,
}

/// Why the keys can't be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The database's word.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The secrets belong to another installation.
    #[error(transparent)]
    Master(#[from] WrongMasterKey),
    /// What is stored makes no sense.
    #[error("the stored keyring is damaged: {0}")]
    Keyring(#[from] KeyringError),
    /// What is stored makes no sense, or can't be written.
    #[error("the installation's keys: {0}")]
    Other(String),
}

impl crate::store::AsStoreError for LoadError {
    fn as_store_error(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}

fn other(error: impl std::fmt::Display) -> LoadError {
    LoadError::Other(error.to_string())
}

/// The copy in the data directory, with which a restored older database can catch up.
#[derive(Serialize, Deserialize)]
struct KeyringCopy {
    chain: Vec<DsseJson>,
    signing_key: String,
}

/// The copy's file name in the data directory, and what its seal is bound to.
const KEYRING_COPY: &str = "keyring.sealed";

/// Every version of the keyring in the database, oldest first.
async fn chain(store: &Store) -> Result<Vec<DsseJson>, LoadError> {
    let rows = store::keyrings(store).await?;
    rows.iter().map(|text| serde_json::from_str(text)).collect::<Result<_, _>>().map_err(other)
}

/// A chain of our own: its first link is believed as it stands, the others by the one before.
fn believed(chain: &[DsseJson]) -> Result<Keyring, LoadError> {
    let (first, rest) = chain.split_first().ok_or_else(|| other("the keyring was made and is not there"))?;
    let origin = first.envelope().ok().and_then(|e| e.keyid.parse().ok());
    let origin = origin.ok_or_else(|| other("the first keyring names no key"))?;
    Ok(Keyring::trust_first(first, &origin)?.advance_all(rest)?)
}

/// The database and the copy hold keyrings that do not continue one another.
fn foreign(copy: &Path) -> LoadError {
    other(format!(
        "the database holds another fleet's keys than {}: it is not this controller's database, or was begun anew while \
         the copy was away. Agents trust the keys of one of the two: restore its database, or move the copy away",
        copy.display()
    ))
}

/// Of several controllers that write the same keys at the same time, one wins and the others read what it wrote.
fn won(made: Result<(), LoadError>) -> Result<(), LoadError> {
    match made {
        Err(LoadError::Store(StoreError::Duplicate(_))) => {
            tracing::info!("another controller wrote the fleet's keys");
            Ok(())
        }
        made => made,
    }
}

impl Keys {
    /// Knows the master key alone.
    #[must_use]
    pub fn new(master: MasterKey) -> Self {
        Self { master, loaded: Arc::default() }
    }

    /// Reads the fleet's key and keyring, or makes them. When several controllers do so at the same time, one wins and
    /// the others read what it made. A database whose keyring is older than the copy in the data directory (an older
    /// dump, or an empty one) catches up from the copy; a newer copy is never overwritten.
    ///
    /// # Errors
    /// [`LoadError`]; `Store` alone can pass by itself.
    pub async fn load(&self, store: &Store, data_dir: &Path) -> Result<(), LoadError> {
        let path = data_dir.join(KEYRING_COPY);
        let copy = self.copy(&path)?;
        let mut kept = chain(store).await?;
        if let Some(copy) = &copy
            && copy.chain.len() > kept.len()
        {
            self.catch_up(store, copy, &kept).await?;
            kept = chain(store).await?;
        } else if kept.is_empty() {
            self.make(store).await?;
            kept = chain(store).await?;
        }
        let copied = copy.map(|copy| copy.chain).unwrap_or_default();
        if !kept.starts_with(&copied) {
            return Err(foreign(&path));
        }
        let loaded = self.opened(store, kept).await?;
        if loaded.chain.len() > copied.len() {
            self.leave_copy(&path, &loaded)?;
        }
        // A second load finds the same keys; rotation will replace this cell.
        if self.loaded.set(loaded).is_err() {
            tracing::debug!("the keys were loaded already");
        }
        Ok(())
    }

    /// The copy in the data directory, if one lies there.
    fn copy(&self, path: &Path) -> Result<Option<KeyringCopy>, LoadError> {
        let sealed = match std::fs::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|e| other(format!("{}: {e}", path.display())))?,
        };
        let unread = || {
            other(format!(
                "the master key does not open {}, the copy of the fleet's keys (SIGNET_MASTER_KEY_FILE); move it away \
                 if it belongs to another installation",
                path.display()
            ))
        };
        let text = self.master.open(KEYRING_COPY, &sealed).map_err(|_| unread())?;
        serde_json::from_slice(&text).map(Some).map_err(|_| unread())
    }

    /// Puts into the database what it lacks of the copy: the newer keyrings, and the newest one's signing key.
    async fn catch_up(&self, store: &Store, copy: &KeyringCopy, kept: &[DsseJson]) -> Result<(), LoadError> {
        if !copy.chain.starts_with(kept) {
            return Err(foreign(Path::new(KEYRING_COPY)));
        }
        // Nothing goes in that would not be believed when it is read again.
        let keyring = believed(&copy.chain)?;
        let signing = SigningKey::from_pem(&copy.signing_key).map_err(other)?;
        if keyring.current() != signing.public() {
            return Err(other("the copy of the keyring names another signing key"));
        }
        let newest = copy.chain.len() as u64;
        tracing::warn!(
            from = kept.len(),
            to = newest,
            "the database's keyring is older than the copy in the data directory, and catches up from it"
        );
        let name = fleet_key_name(newest);
        let sealed = self.master.seal(&name, copy.signing_key.as_bytes()).map_err(other)?;
        let missing: Vec<String> = copy.chain[kept.len()..]
            .iter()
            .map(serde_json::to_string)
            .collect::<Result<_, _>>()
            .map_err(other)?;
        let now = Micros::now();
        let made = in_transaction!(store, |tx| -> Result<(), LoadError> {
            store::insert_secret(tx, &name, &sealed, now).await?;
            for (version, signed) in (kept.len() as u64 + 1..).zip(&missing) {
                store::insert_keyring(tx, version, signed, now).await?;
            }
            Ok(())
        });
        won(made)
    }

    fn leave_copy(&self, path: &Path, loaded: &Loaded) -> Result<(), LoadError> {
        let copy =
            KeyringCopy { chain: loaded.chain.clone(), signing_key: loaded.signing.to_pem().map_err(other)? };
        let text = serde_json::to_vec(&copy).map_err(other)?;
        let sealed = self.master.seal(KEYRING_COPY, &text).map_err(other)?;
        write_private(path, &sealed).map_err(other)
    }

    /// The stored keyring, with the key that it names.
    async fn opened(&self, store: &Store, chain: Vec<DsseJson>) -> Result<Loaded, LoadError> {
        let name = fleet_key_name(chain.len() as u64);
        let sealed = store::secret(store, &name).await?;
        let sealed =
            sealed.ok_or_else(|| other("the newest keyring's signing key is not in the database"))?;
        let pem = self.master.open(&name, &sealed)?;
        let signing =
            std::str::from_utf8(&pem).map_err(other).and_then(|p| SigningKey::from_pem(p).map_err(other))?;
        let keyring = believed(&chain)?;
        if keyring.current() != signing.public() {
            return Err(other("the newest keyring names another signing key"));
        }
        Ok(Loaded { signing, keyring, chain })
    }

    async fn make(&self, store: &Store) -> Result<(), LoadError> {
        let key = tokio::task::spawn_blocking(SigningKey::generate).await.map_err(other)?.map_err(other)?;
        let now = Micros::now();
        let (_, signed) = Keyring::first(&key, now.seconds()).map_err(other)?;
        let signed = serde_json::to_string(&signed).map_err(other)?;
        let name = fleet_key_name(1);
        let sealed = self.master.seal(&name, key.to_pem().map_err(other)?.as_bytes()).map_err(other)?;
        let made = in_transaction!(store, |tx| -> Result<(), LoadError> {
            store::insert_secret(tx, &name, &sealed, now).await?;
            Ok(store::insert_keyring(tx, 1, &signed, now).await?)
        });
        won(made)
    }

    fn loaded(&self) -> Result<&Loaded, Error> {
        let message = "the controller is starting: its keys are not loaded yet".to_owned();
        self.loaded.get().ok_or(Error::Unavailable { message, retry_after: RETRY_AFTER_SECONDS })
    }

    /// The key that signs messages to agents.
    ///
    /// # Errors
    /// [`Error::Unavailable`] until the database was there once.
    pub fn signing(&self) -> Result<SigningKey, Error> {
        Ok(self.loaded()?.signing.clone())
    }

    /// The newest keyring.
    ///
    /// # Errors
    /// As [`Keys::signing`].
    pub fn keyring(&self) -> Result<Keyring, Error> {
        Ok(self.loaded()?.keyring.clone())
    }

    /// Every version of the keyring, signed, oldest first.
    ///
    /// # Errors
    /// As [`Keys::signing`].
    pub fn chain(&self) -> Result<Vec<DsseJson>, Error> {
        Ok(self.loaded()?.chain.clone())
    }

    /// Seals and authenticates with the installation's key; there before the database is.
    #[must_use]
    pub fn master(&self) -> &MasterKey {
        &self.master
    }
}

fn fleet_key_name(version: u64) -> String {
    format!("fleet-key.{version}")
}
