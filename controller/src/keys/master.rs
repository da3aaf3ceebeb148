//! The master key: one per installation, in a file, never in the database.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac;
use aws_lc_rs::rand;

use super::files::create_or_read;

/// A secret was sealed with another master key, or is damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the master key does not open '{0}' in the database: it belongs to another installation or was replaced \
     (SIGNET_MASTER_KEY_FILE)"
)]
pub struct WrongMasterKey(pub String);

/// Seals what lies in the database: AES-256-GCM, bound to the secret's name. Never printed.
#[derive(Clone)]
pub struct MasterKey(Arc<Parts>);

struct Parts {
    seal: RandomizedNonceKey,
    authenticate: hmac::Key,
}

/// The first byte of everything sealed, so that the form can change.
const FORM: u8 = 1;
const NONCE_BYTES: usize = 12;

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey")
    }
}

impl MasterKey {
    /// Reads 32 bytes in hex from a file, which is made when absent, readable for its owner alone.
    ///
    /// # Errors
    /// When the file can't be read or made, or holds something else.
    pub fn load_or_create(path: &Path) -> anyhow::Result<Self> {
        let fresh = || {
            let mut bytes = [0; 32];
            rand::fill(&mut bytes).map_err(|_| std::io::Error::other("no randomness"))?;
            Ok(hex::encode(bytes))
        };
        let text = create_or_read(path, fresh).with_context(|| format!("master key {}", path.display()))?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(&text, &mut bytes)
            .ok()
            .with_context(|| format!("master key {}: not 64 hex digits", path.display()))?;
        Self::from_bytes(&bytes)
    }

    fn from_bytes(bytes: &[u8; 32]) -> anyhow::Result<Self> {
        let seal = RandomizedNonceKey::new(&AES_256_GCM, bytes).ok().context("master key")?;
        // A key of its own for each use: HMAC of the use's name.
        let root = hmac::Key::new(hmac::HMAC_SHA256, bytes);
        let derived = hmac::sign(&root, b"signet-authenticate-v1");
        Ok(Self(Arc::new(Parts { seal, authenticate: hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()) })))
    }

    /// Seals a secret under its name.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn seal(&self, name: &str, secret: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut sealed = secret.to_vec();
        let nonce = self.0.seal.seal_in_place_append_tag(Aad::from(name.as_bytes()), &mut sealed);
        let nonce = nonce.ok().context("sealing failed")?;
        Ok([&[FORM], nonce.as_ref().as_slice(), &sealed].concat())
    }

    /// Opens what was sealed under this name.
    ///
    /// # Errors
    /// When it was sealed with another key or under another name.
    pub fn open(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, WrongMasterKey> {
        let wrong = || WrongMasterKey(name.to_owned());
        let (form, rest) = sealed.split_first().ok_or_else(wrong)?;
        let (nonce, body) = rest.split_at_checked(NONCE_BYTES).ok_or_else(wrong)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| wrong())?;
        let mut body = body.to_vec();
        let opened = self.0.seal.open_in_place(nonce, Aad::from(name.as_bytes()), &mut body);
        match opened {
            Ok(secret) if *form == FORM => Ok(secret.to_vec()),
            _ => Err(wrong()),
        }
    }

    /// A tag that only this installation can make.
    #[must_use]
    pub fn tag(&self, message: &[u8]) -> Vec<u8> {
        hmac::sign(&self.0.authenticate, message).as_ref().to_vec()
    }

    /// Whether `tag` is this installation's for `message`, in constant time.
    #[must_use]
    pub fn tagged(&self, message: &[u8], tag: &[u8]) -> bool {
        hmac::verify(&self.0.authenticate, message, tag).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_and_name_open_a_seal() {
        let dir = tempfile::tempdir().unwrap();
        let mine = MasterKey::load_or_create(&dir.path().join("a")).unwrap();
        let again = MasterKey::load_or_create(&dir.path().join("a")).unwrap();
        let other = MasterKey::load_or_create(&dir.path().join("b")).unwrap();
        let sealed = mine.seal("x", b"secret").unwrap();
        assert_eq!(again.open("x", &sealed).unwrap(), b"secret");
        assert!(other.open("x", &sealed).is_err());
        assert!(mine.open("y", &sealed).is_err());
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert!(mine.open("x", &altered).is_err(), "byte {at}");
        }
        assert!(mine.open("x", b"").is_err());
        assert!(again.tagged(b"m", &mine.tag(b"m")) && !other.tagged(b"m", &mine.tag(b"m")));
    }

    #[test]
    fn a_file_with_something_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "hello").unwrap();
        let error = MasterKey::load_or_create(&path).unwrap_err().to_string();
        assert!(error.contains("64 hex digits"), "{error}");
    }
}
