//! Secrets of the installation under a name, made when first asked for.

use signet_common::time::Micros;

use super::{Keys, LoadError, other, store, won};
use crate::store::{Store, in_transaction};

/// As long as the hash that they go into (RFC 7518, section 3.2).
const SECRET_BYTES: usize = 32;

impl Keys {
    /// 32 random bytes that all controllers of the installation share, sealed in the database.
    ///
    /// # Errors
    /// [`LoadError`]; `Store` alone can pass by itself.
    pub async fn named_secret(&self, store: &Store, name: &str) -> Result<Vec<u8>, LoadError> {
        if let Some(sealed) = secret(store, name).await? {
            return Ok(self.master().open(name, &sealed)?);
        }
        let mut fresh = [0; SECRET_BYTES];
        aws_lc_rs::rand::fill(&mut fresh).map_err(|_| other("no randomness"))?;
        let sealed = self.master().seal(name, &fresh).map_err(other)?;
        let now = Micros::now();
        won(in_transaction!(store, |tx| -> Result<(), LoadError> {
            Ok(store::insert_secret(tx, name, &sealed, now).await?)
        }))?;
        let sealed = secret(store, name).await?.ok_or_else(|| other("a secret was made and is not there"))?;
        Ok(self.master().open(name, &sealed)?)
    }
}

async fn secret(store: &Store, name: &str) -> Result<Option<Vec<u8>>, LoadError> {
    let mut tx = store.begin().await?;
    let found = store::secrets(&mut tx, vec![name.to_owned()]).await?;
    Ok(found.into_iter().next().map(|(_, sealed)| sealed))
}
