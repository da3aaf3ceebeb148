//! The installation's keys: the master key seals every secret at rest; the fleet's signing key and its keyring lie in the
//! database.
//!
//! Any controller may rotate the fleet's key. The others notice by the newest keyring's version, which they read in every
//! transaction that signs for agents.

mod copy;
mod files;
mod fleet;
mod master;
mod named;
mod store;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use serde_json::json;
use signet_common::SigningKey;
use signet_common::envelope::DsseJson;
use signet_common::keyring::{Keyring, KeyringError};
use signet_common::limits::KEYRING_CHAIN_MAX;
use signet_common::time::Micros;

pub use files::{create_or_read, write_private};
pub use fleet::FleetKeys;
pub use master::{MasterKey, WrongMasterKey};
pub use store::ALL as STATEMENTS;

use self::copy::Copy;
use crate::audit::{self, Action, Author, Note};
use crate::error::{Error, Result as Answer};
use crate::limits::RETRY_AFTER_SECONDS;
use crate::store::{Store, StoreError, Tx, in_transaction};

/// What the controller signs with, once the database is there. Cheap to clone.
#[derive(Clone)]
pub struct Keys {
    master: MasterKey,
    held: Arc<RwLock<Option<Arc<FleetKeys>>>>,
    /// One at a time writes it.
    copy: Arc<Mutex<Option<Copy>>>,
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

impl From<LoadError> for Error {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Store(error) => Self::Store(error),
            other => Self::Internal(other.to_string()),
        }
    }
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

/// Every version of the keyring in the database, oldest first.
async fn chain(tx: &mut Tx) -> Result<Vec<DsseJson>, LoadError> {
    let rows = store::keyrings(tx).await?;
    rows.iter().map(|text| serde_json::from_str(text)).collect::<Result<_, _>>().map_err(other)
}

async fn generate() -> Result<SigningKey, LoadError> {
    tokio::task::spawn_blocking(SigningKey::generate).await.map_err(other)?.map_err(other)
}

impl Keys {
    /// Knows the master key alone.
    #[must_use]
    pub fn new(master: MasterKey) -> Self {
        Self { master, held: Arc::default(), copy: Arc::default() }
    }

    /// Reads the fleet's key and keyring, or makes them. When several controllers do so at the same time, one wins and
    /// the others read what it made. A database whose keyring is older than the copy in the data directory (an older
    /// dump, or an empty one) catches up from the copy; a newer copy is never overwritten.
    ///
    /// # Errors
    /// [`LoadError`]; `Store` alone can pass by itself.
    pub async fn load(&self, store: &Store, data_dir: &Path) -> Result<(), LoadError> {
        let place = Copy::in_dir(data_dir);
        let copy = place.read(&self.master)?;
        let copied = copy.as_ref().map_or(&[][..], FleetKeys::chain);
        let mut kept = chain(&mut store.begin().await?).await?;
        if let Some(copy) = &copy
            && copied.len() > kept.len()
        {
            if !copied.starts_with(&kept) {
                return Err(foreign(place.path()));
            }
            self.catch_up(store, copy, kept.len() as u64).await?;
            kept = chain(&mut store.begin().await?).await?;
        } else if kept.is_empty() {
            self.make(store).await?;
            kept = chain(&mut store.begin().await?).await?;
        }
        if !kept.starts_with(copied) {
            return Err(foreign(place.path()));
        }
        let fleet = self.opened(&mut store.begin().await?, kept).await?;
        place.leave(&self.master, &fleet)?;
        *self.copy.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
        self.take(&Arc::new(fleet));
        Ok(())
    }

    /// Puts into the database what it lacks of the copy: the newer keyrings, and their signing keys.
    async fn catch_up(&self, store: &Store, copy: &FleetKeys, kept: u64) -> Result<(), LoadError> {
        tracing::warn!(
            from = kept,
            to = copy.version(),
            "the database's keyring is older than the copy in the data directory, and catches up from it"
        );
        let missing = kept + 1..=copy.version();
        // Also older ones: the database may have caught up from a copy without them.
        let keys = copy.older().iter().map(|(version, key)| (*version, key));
        let keys = keys.chain([(copy.version(), copy.signing())]).filter(|(version, _)| *version > kept);
        let sealed = keys.map(|(version, key)| self.sealed(version, key)).collect::<Result<Vec<_>, _>>()?;
        let signed: Vec<(u64, String)> = missing
            .filter_map(|version| Some((version, copy.link(version)?)))
            .map(|(version, link)| Ok((version, serde_json::to_string(link).map_err(other)?)))
            .collect::<Result<_, LoadError>>()?;
        let now = Micros::now();
        let made = in_transaction!(store, |tx| -> Result<(), LoadError> {
            for (name, sealed) in &sealed {
                store::insert_secret(tx, name, sealed, now).await?;
            }
            for (version, signed) in &signed {
                store::insert_keyring(tx, *version, signed, now).await?;
            }
            Ok(())
        });
        won(made)
    }

    /// A signing key as it lies in the database, with its name.
    fn sealed(&self, version: u64, key: &SigningKey) -> Result<(String, Vec<u8>), LoadError> {
        let name = fleet_key_name(version);
        let sealed = self.master.seal(&name, key.to_pem().map_err(other)?.as_bytes()).map_err(other)?;
        Ok((name, sealed))
    }

    /// The stored keyring, with the keys that it names.
    async fn opened(&self, tx: &mut Tx, chain: Vec<DsseJson>) -> Result<FleetKeys, LoadError> {
        let names: BTreeMap<String, u64> = (1..=chain.len() as u64).map(|v| (fleet_key_name(v), v)).collect();
        let mut keys = BTreeMap::new();
        for (name, sealed) in store::secrets(tx, names.keys().cloned().collect()).await? {
            let Some(version) = names.get(&name) else { continue };
            let pem = self.master.open(&name, &sealed)?;
            let pem = std::str::from_utf8(&pem).map_err(other)?;
            keys.insert(*version, SigningKey::from_pem(pem).map_err(other)?);
        }
        FleetKeys::new(chain, keys)
    }

    async fn make(&self, store: &Store) -> Result<(), LoadError> {
        let key = generate().await?;
        let now = Micros::now();
        let (_, signed) = Keyring::first(&key, now.seconds()).map_err(other)?;
        let signed = serde_json::to_string(&signed).map_err(other)?;
        let (name, sealed) = self.sealed(1, &key)?;
        let made = in_transaction!(store, |tx| -> Result<(), LoadError> {
            store::insert_secret(tx, &name, &sealed, now).await?;
            Ok(store::insert_keyring(tx, 1, &signed, now).await?)
        });
        won(made)
    }

    /// Signs with these from now on, unless newer ones were quicker; says whether they are news.
    fn take(&self, fleet: &Arc<FleetKeys>) -> bool {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let news = held.as_ref().is_none_or(|held| held.version() < fleet.version());
        if news {
            *held = Some(Arc::clone(fleet));
        }
        news
    }

    /// Leaves a copy in the data directory; a failure is told in the log, and the next start tries again.
    fn leave_copy(&self, fleet: &FleetKeys) {
        let copy = self.copy.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Err(error)) = copy.as_ref().map(|copy| copy.leave(&self.master, fleet)) {
            tracing::error!(%error, "no copy of the fleet's keys could be left in the data directory");
        }
    }

    /// The fleet's keys as this controller knows them. Who signs for agents asks [`Keys::at_least`].
    ///
    /// # Errors
    /// [`Error::Unavailable`] until the database was there once.
    pub fn fleet(&self) -> Answer<Arc<FleetKeys>> {
        let message = "the controller is starting: its keys are not loaded yet".to_owned();
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner).clone();
        held.ok_or(Error::Unavailable { message, retry_after: RETRY_AFTER_SECONDS })
    }

    /// The fleet's keys of this version, which was read in this transaction, or newer ones: another controller may have
    /// rotated them.
    ///
    /// # Errors
    /// As [`Keys::fleet`], and when the database fails or holds what can't be believed.
    pub async fn at_least(&self, tx: &mut Tx, version: u64) -> Answer<Arc<FleetKeys>> {
        let known = self.fleet()?;
        if version <= known.version() {
            return Ok(known);
        }
        let kept = chain(tx).await?;
        if !kept.starts_with(known.chain()) {
            let message = "the database's keyring does not continue the one that this controller signs with";
            return Err(Error::Internal(message.into()));
        }
        let fleet = Arc::new(self.opened(tx, kept).await?);
        if self.take(&fleet) {
            tracing::warn!(version = fleet.version(), "the fleet's key was rotated by another controller");
            let (keys, fleet) = (self.clone(), Arc::clone(&fleet));
            tokio::task::spawn_blocking(move || keys.leave_copy(&fleet));
        }
        Ok(fleet)
    }

    /// The fleet's newest keys as this transaction sees them.
    ///
    /// # Errors
    /// As [`Keys::at_least`].
    pub async fn newest_in(&self, tx: &mut Tx) -> Answer<Arc<FleetKeys>> {
        let version = store::newest(&mut *tx).await?;
        self.at_least(tx, version).await
    }

    /// The fleet's newest keys.
    ///
    /// # Errors
    /// As [`Keys::at_least`].
    pub async fn newest(&self, store: &Store) -> Answer<Arc<FleetKeys>> {
        let (known, version) = (self.fleet()?, store::newest(store).await?);
        if version <= known.version() {
            return Ok(known);
        }
        self.at_least(&mut store.begin().await?, version).await
    }

    /// When the keyring of this version was made.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn made_at(&self, store: &Store, version: u64) -> Answer<Option<Micros>> {
        Ok(store::made_at(store, version).await?)
    }

    /// Makes a new key and signs with it from now on. The one before is believed for one more version of the keyring;
    /// with `revoke`, none before it is.
    ///
    /// # Errors
    /// [`Error::Conflict`] when another controller rotates at the same moment, the database's keyring is not the one that
    /// this controller signs with, or the chain is too long.
    pub async fn rotate(&self, by: &Author, store: &Store, revoke: bool) -> Answer<Arc<FleetKeys>> {
        let held = self.newest(store).await?;
        if held.chain().len() >= KEYRING_CHAIN_MAX {
            return Err(Error::Conflict(format!("a keyring has at most {KEYRING_CHAIN_MAX} versions")));
        }
        let now = Micros::now();
        let next = held.rotated(generate().await?, now.seconds(), revoke);
        let next = next.map_err(|e| Error::Internal(e.to_string()))?;
        let (name, sealed) = self.sealed(next.version(), next.signing())?;
        let signed = next.chain().last().map(serde_json::to_string).transpose();
        let signed = signed.map_err(|e| Error::Internal(e.to_string()))?.unwrap_or_default();
        let made = in_transaction!(store, |tx| -> Answer<()> {
            if store::newest(&mut *tx).await? != held.version() {
                return Err(Error::Conflict(
                    "the database holds another keyring than this controller: it was rotated or restored just now".into(),
                ));
            }
            store::insert_secret(tx, &name, &sealed, now).await?;
            store::insert_keyring(tx, next.version(), &signed, now).await?;
            let described = |keys: &FleetKeys| json!({ "version": keys.version(), "fingerprint": keys.keyring().current().id() });
            let action = if revoke { Action::FleetKeyRevoke } else { Action::FleetKeyRotate };
            let note = Note::of(action, "fleet key").old(described(&held)).new(described(&next));
            Ok(audit::note(tx, by, note).await?)
        });
        made.map_err(|error| match error {
            Error::Store(StoreError::Duplicate(_)) => {
                Error::Conflict("another controller rotated the fleet's key at the same moment".into())
            }
            error => error,
        })?;
        let next = Arc::new(next);
        self.take(&next);
        tracing::warn!(version = next.version(), key = %next.signing().public().id(), revoke, "the fleet's key was rotated");
        let (keys, copied) = (self.clone(), Arc::clone(&next));
        let left = tokio::task::spawn_blocking(move || keys.leave_copy(&copied)).await;
        left.map_err(|e| Error::Internal(e.to_string()))?;
        Ok(next)
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
