//! What is known of repositories.

use std::collections::HashMap;

use serde_json::{Value, json};
use signet_common::time::Micros;
use uuid::Uuid;

use super::address;
use super::credential::Credential;
use super::model::{Change, Repository};
use super::store;
use crate::audit::{self, Action, Author, Note};
use crate::error::{Error, Result};
use crate::keys::Keys;
use crate::limits::REPOSITORIES_MAX;
use crate::store::{Store, StoreError, in_transaction};

/// Repositories. Cheap to clone.
#[derive(Clone)]
pub struct Repositories {
    store: Store,
    keys: Keys,
}

impl std::fmt::Debug for Repositories {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Repositories")
    }
}

/// What counts for one repository. Each part comes from the longest address that has it, so that an entry for one
/// repository does not lift what an entry above it demands.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// What opens it.
    pub credential: Option<Credential>,
    /// Whose signature every deployment of it needs.
    pub allowed_signers: Option<String>,
}

/// An entry that somebody adds.
#[derive(Debug)]
pub(super) struct New {
    pub(super) url: String,
    pub(super) credential: Option<Credential>,
    pub(super) allowed_signers: Option<String>,
}

/// What somebody changes.
#[derive(Debug)]
pub(super) struct Changes {
    pub(super) credential: Change<Credential>,
    pub(super) allowed_signers: Change<String>,
}

fn digest(address: &str) -> String {
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, address.as_bytes()))
}

/// Under what a credential is sealed: who moves it to another address in the database opens nothing.
fn name(id: &str, digest: &str) -> String {
    format!("repository-credential.{id}.{digest}")
}

fn of_url(url: &str) -> Result<String> {
    let plain = address::entry(url).ok_or_else(|| Error::invalid("url", "url must have no part . or .."))?;
    Ok(digest(&plain))
}

/// As the trail shows it.
fn noted(entry: &Repository) -> Value {
    json!({ "url": entry.url, "credential": entry.about, "allowed_signers": entry.allowed_signers })
}

fn unknown() -> Error {
    Error::NotFound("Repository not found".into())
}

impl Repositories {
    /// Those in this database.
    #[must_use]
    pub const fn new(store: Store, keys: Keys) -> Self {
        Self { store, keys }
    }

    /// What counts for the repository at this address.
    ///
    /// # Errors
    /// The database's, or a credential that the master key does not open.
    pub async fn known(&self, url: &str) -> Result<Known> {
        let digests: Vec<String> = address::entries(url).iter().map(|entry| digest(entry)).collect();
        let found = store::matching(&self.store, &digests).await?;
        let found: HashMap<&str, &store::Match> =
            found.iter().map(|one| (one.url_digest.as_str(), one)).collect();
        // The longest comes last.
        let longest = || digests.iter().rev().filter_map(|digest| found.get(digest.as_str()));
        let sealed = longest().find_map(|entry| Some((entry, entry.sealed.as_ref()?)));
        let credential =
            sealed.map(|(entry, sealed)| self.open(&entry.id, &entry.url_digest, sealed)).transpose()?;
        Ok(Known { credential, allowed_signers: longest().find_map(|entry| entry.allowed_signers.clone()) })
    }

    fn seal(&self, id: &str, digest: &str, credential: &Credential) -> Result<Vec<u8>> {
        let text = serde_json::to_vec(credential).map_err(|e| Error::Internal(e.to_string()))?;
        self.keys.master().seal(&name(id, digest), &text).map_err(|e| Error::Internal(e.to_string()))
    }

    fn open(&self, id: &str, digest: &str, sealed: &[u8]) -> Result<Credential> {
        let text = self.keys.master().open(&name(id, digest), sealed);
        let text = text.map_err(|e| Error::Internal(e.to_string()))?;
        serde_json::from_slice(&text).map_err(|_| Error::Internal("a credential can't be read".into()))
    }

    pub(super) async fn list(&self) -> Result<Vec<Repository>> {
        Ok(store::list(&self.store).await?)
    }

    pub(super) async fn one(&self, id: &str) -> Result<Repository> {
        store::one(&self.store, id).await?.ok_or_else(unknown)
    }

    pub(super) async fn add(&self, by: &Author, new: &New) -> Result<Repository> {
        let (id, digest, now) = (Uuid::now_v7().to_string(), of_url(&new.url)?, Micros::now());
        let sealed = new.credential.as_ref().map(|c| self.seal(&id, &digest, c)).transpose()?;
        let entry = Repository {
            id,
            url: new.url.clone(),
            about: new.credential.as_ref().map(Credential::about),
            allowed_signers: new.allowed_signers.clone(),
            created_at: now,
            updated_at: now,
        };
        in_transaction!(self.store, |tx| -> Result<()> {
            if store::count(tx).await? >= REPOSITORIES_MAX {
                return Err(Error::Conflict(format!("there are at most {REPOSITORIES_MAX} repositories")));
            }
            match store::insert(tx, &entry, &digest, sealed.clone()).await {
                Err(StoreError::Duplicate(_)) => {
                    return Err(Error::Conflict("there is an entry for this address already".into()));
                }
                other => other?,
            }
            Ok(audit::note(tx, by, Note::of(Action::RepositoryAdd, &entry.id).new(noted(&entry))).await?)
        })?;
        Ok(entry)
    }

    pub(super) async fn change(&self, by: &Author, id: &str, changes: &Changes) -> Result<Repository> {
        let now = Micros::now();
        in_transaction!(self.store, |tx| -> Result<Repository> {
            let old = store::one(&mut *tx, id).await?.ok_or_else(unknown)?;
            if let Change::Set(credential) = &changes.credential {
                let digest = of_url(&old.url)?;
                let about = credential.as_ref().map(Credential::about);
                let sealed = credential.as_ref().map(|c| self.seal(id, &digest, c)).transpose()?;
                store::set_credential(tx, id, sealed.zip(about.as_ref()), now).await?;
            }
            if let Change::Set(signers) = &changes.allowed_signers {
                store::set_signers(tx, id, signers.as_deref(), now).await?;
            }
            let entry = store::one(&mut *tx, id).await?.ok_or_else(unknown)?;
            let note = Note::of(Action::RepositoryChange, id).old(noted(&old)).new(noted(&entry));
            audit::note(tx, by, note).await?;
            Ok(entry)
        })
    }

    pub(super) async fn remove(&self, by: &Author, id: &str) -> Result<()> {
        in_transaction!(self.store, |tx| -> Result<()> {
            let old = store::one(&mut *tx, id).await?.ok_or_else(unknown)?;
            if !store::delete(tx, id).await? {
                return Err(unknown());
            }
            Ok(audit::note(tx, by, Note::of(Action::RepositoryRemove, id).old(noted(&old))).await?)
        })
    }
}
