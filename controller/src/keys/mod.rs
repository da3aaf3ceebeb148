//! The installation's keys: the master key seals every secret at rest; the fleet's signing key and its keyring lie in the
//! database.

mod files;
mod master;
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

impl Keys {
    /// Knows the master key alone.
    #[must_use]
    pub fn new(master: MasterKey) -> Self {
        Self { master, loaded: Arc::default() }
    }

    /// Reads the fleet's key and keyring, or makes them. When several controllers do so at the same time, one wins and
    /// the others read what it made.
    ///
    /// # Errors
    /// [`LoadError`]; `Store` alone can pass by itself.
    pub async fn load(&self, store: &Store, data_dir: &Path) -> Result<(), LoadError> {
        let loaded = match self.read(store).await? {
            Some(loaded) => loaded,
            None => {
                self.make(store).await?;
                self.read(store).await?.ok_or_else(|| other("the keyring was made and is not there"))?
            }
        };
        let copy =
            KeyringCopy { chain: loaded.chain.clone(), signing_key: loaded.signing.to_pem().map_err(other)? };
        let text = serde_json::to_vec(&copy).map_err(other)?;
        let sealed = self.master.seal(KEYRING_COPY, &text).map_err(other)?;
        write_private(&data_dir.join(KEYRING_COPY), &sealed).map_err(other)?;
        // A second load finds the same keys; rotation will replace this cell.
        if self.loaded.set(loaded).is_err() {
            tracing::debug!("the keys were loaded already");
        }
        Ok(())
    }

    async fn read(&self, store: &Store) -> Result<Option<Loaded>, LoadError> {
        let rows = store::keyrings(store).await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let chain: Vec<DsseJson> =
            rows.iter().map(|text| serde_json::from_str(text)).collect::<Result<_, _>>().map_err(other)?;
        let newest = store::secret(store, &fleet_key_name(rows.len() as u64)).await?;
        let newest =
            newest.ok_or_else(|| other("the newest keyring's signing key is not in the database"))?;
        let pem = self.master.open(&fleet_key_name(rows.len() as u64), &newest)?;
        let signing =
            std::str::from_utf8(&pem).map_err(other).and_then(|p| SigningKey::from_pem(p).map_err(other))?;
        // The chain lies in our own database: its first link is believed as it stands, the others by the first.
        let first: DsseJson = serde_json::from_str(first).map_err(other)?;
        let origin = first.envelope().ok().and_then(|e| e.keyid.parse().ok());
        let origin = origin.ok_or_else(|| other("the first keyring names no key"))?;
        let keyring = Keyring::trust_first(&first, &origin)?.advance_all(&chain[1..])?;
        if keyring.current() != signing.public() {
            return Err(other("the newest keyring names another signing key"));
        }
        Ok(Some(Loaded { signing, keyring, chain }))
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
        match made {
            Err(LoadError::Store(StoreError::Duplicate(_))) => {
                tracing::info!("another controller made the fleet's key");
                Ok(())
            }
            made => made,
        }
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
