//! The keyring: which controller keys agents believe, as a chain in which each version is signed by the one before.
//!
//! Version N+1's body carries the signatures by N's key and by N+1's; version 1 is signed by its own key alone, and an
//! agent believes it because a join token (or `--controller-key`) names that key's fingerprint.

use serde::{Deserialize, Serialize};

use crate::envelope::{DsseJson, DsseSignature, Envelope, PayloadType, SealError};
use crate::ids::KeyId;
use crate::keys::{PublicKey, SigningKey};
use crate::limits::KEYRING_CHAIN_MAX;

/// One version of the keyring: the payload of type `keyring`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyringBody {
    /// Grows by exactly one.
    pub version: u64,
    /// Made at, whole seconds since 1970.
    pub iat: i64,
    /// The current signing key in PEM.
    pub current: String,
    /// The one before, unless it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
}

/// A keyring that was verified, and that verifies messages to agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyring {
    version: u64,
    current: PublicKey,
    previous: Option<PublicKey>,
}

/// Why a keyring is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// Malformed.
    #[error("malformed keyring")]
    Malformed,
    /// The next version must follow exactly.
    #[error("keyring version {found} does not follow {expected}")]
    Version {
        /// What was needed.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// Signed by nobody who is believed here.
    #[error("the keyring is not signed by a trusted key")]
    Untrusted,
}

impl Keyring {
    /// The keyring of a new installation, and its signed form.
    ///
    /// # Errors
    /// When signing fails.
    pub fn first(key: &SigningKey, iat: i64) -> Result<(Self, DsseJson), SealError> {
        let body = KeyringBody { version: 1, iat, current: key.public().to_pem(), previous: None };
        let signed = Envelope::sign(key, PayloadType::Keyring, &body)?.to_dsse();
        Ok((Self { version: 1, current: key.public().clone(), previous: None }, signed))
    }

    /// The next version, signed by both keys.
    ///
    /// # Errors
    /// When signing fails.
    pub fn next(
        &self,
        old: &SigningKey,
        new: &SigningKey,
        iat: i64,
        revoke_old: bool,
    ) -> Result<(Self, DsseJson), SealError> {
        let previous = (!revoke_old).then(|| old.public().clone());
        let body = KeyringBody {
            version: self.version + 1,
            iat,
            current: new.public().to_pem(),
            previous: previous.as_ref().map(PublicKey::to_pem),
        };
        let by_old = Envelope::sign(old, PayloadType::Keyring, &body)?;
        let by_new = Envelope::sign_bytes(new, PayloadType::Keyring, by_old.body.clone())?;
        let mut signed = by_old.to_dsse();
        signed.signatures.push(DsseSignature { keyid: by_new.keyid, sig: by_new.sig });
        Ok((Self { version: body.version, current: new.public().clone(), previous }, signed))
    }

    fn verified(signed: &DsseJson, must: &[&PublicKey]) -> Result<(Self, KeyringBody), KeyringError> {
        let envelopes = signed.envelopes().map_err(|_| KeyringError::Malformed)?;
        let find = |id: &KeyId| envelopes.iter().find(|e| e.keyid == id.as_str());
        let mut body = None;
        for key in must {
            let envelope = find(key.id()).ok_or(KeyringError::Untrusted)?;
            let authentic = envelope
                .verify(&[PayloadType::Keyring], |_| Some((*key).clone()))
                .map_err(|_| KeyringError::Untrusted)?;
            body = Some(authentic.parse::<KeyringBody>().map_err(|_| KeyringError::Malformed)?.into_inner());
        }
        let body = body.ok_or(KeyringError::Untrusted)?;
        let pem = |text: &str| PublicKey::from_pem(text).map_err(|_| KeyringError::Malformed);
        let current = pem(&body.current)?;
        let previous = body.previous.as_deref().map(pem).transpose()?;
        Ok((Self { version: body.version, current, previous }, body))
    }

    /// Believes a first keyring because its current key has this fingerprint. Any version may be the first that an
    /// agent sees.
    ///
    /// # Errors
    /// When it is malformed or not signed by that key.
    pub fn trust_first(signed: &DsseJson, fingerprint: &KeyId) -> Result<Self, KeyringError> {
        let claimed: KeyringBody = signed
            .envelope()
            .ok()
            .and_then(|e| serde_json::from_slice(&e.body).ok())
            .ok_or(KeyringError::Malformed)?;
        let key = PublicKey::from_pem(&claimed.current).map_err(|_| KeyringError::Malformed)?;
        if key.id() != fingerprint {
            return Err(KeyringError::Untrusted);
        }
        Ok(Self::verified(signed, &[&key])?.0)
    }

    /// Believes version N+1 because N's current key signed it, and its own does too.
    ///
    /// # Errors
    /// When it skips a version, is malformed or lacks one of the two signatures.
    pub fn advance(&self, signed: &DsseJson) -> Result<Self, KeyringError> {
        let claimed: KeyringBody = signed
            .envelope()
            .ok()
            .and_then(|e| serde_json::from_slice(&e.body).ok())
            .ok_or(KeyringError::Malformed)?;
        let new = PublicKey::from_pem(&claimed.current).map_err(|_| KeyringError::Malformed)?;
        let (next, _) = Self::verified(signed, &[&self.current, &new])?;
        if next.version != self.version + 1 {
            return Err(KeyringError::Version { expected: self.version + 1, found: next.version });
        }
        Ok(next)
    }

    /// Walks a chain of versions, oldest first. Versions that are already known are skipped.
    ///
    /// # Errors
    /// At the first step that is not believed, or when the chain is too long.
    pub fn advance_all(&self, chain: &[DsseJson]) -> Result<Self, KeyringError> {
        if chain.len() > KEYRING_CHAIN_MAX {
            return Err(KeyringError::Malformed);
        }
        let mut keyring = self.clone();
        for signed in chain {
            match keyring.advance(signed) {
                Ok(next) => keyring = next,
                // An unverified body can only be skipped over, never believed.
                Err(_) if version_of(signed).is_some_and(|v| v <= keyring.version) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(keyring)
    }

    /// The version.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The key that signs now.
    #[must_use]
    pub fn current(&self) -> &PublicKey {
        &self.current
    }

    /// The key before, which is still believed; absent when it was revoked.
    #[must_use]
    pub fn previous(&self) -> Option<&PublicKey> {
        self.previous.as_ref()
    }

    /// Finds the key that a message names: the current one or the one before.
    #[must_use]
    pub fn find(&self, id: &KeyId) -> Option<PublicKey> {
        [Some(&self.current), self.previous.as_ref()].into_iter().flatten().find(|k| k.id() == id).cloned()
    }
}

/// Every key that the fleet ever signed with, oldest first: for what was signed long ago.
#[derive(Debug, Clone)]
pub struct History(Vec<Past>);

/// A key, and since when it is the current one, in seconds since 1970.
#[derive(Debug, Clone)]
struct Past {
    key: PublicKey,
    since: i64,
}

impl History {
    /// Believes a whole chain because one of its keys has this fingerprint: each version is signed by its own key and by
    /// the one before, so nobody without the keys on both sides of it can add one.
    ///
    /// # Errors
    /// When a step is not signed so, or no key has the fingerprint.
    pub fn believed(chain: &[DsseJson], anchor: &KeyId) -> Result<Self, KeyringError> {
        if chain.len() > KEYRING_CHAIN_MAX {
            return Err(KeyringError::Malformed);
        }
        let (first, rest) = chain.split_first().ok_or(KeyringError::Malformed)?;
        let origin =
            first.envelope().ok().and_then(|e| e.keyid.parse().ok()).ok_or(KeyringError::Malformed)?;
        let past = |keyring: &Keyring, signed: &DsseJson| {
            let body =
                signed.envelope().ok().and_then(|e| serde_json::from_slice::<KeyringBody>(&e.body).ok());
            let since = body.map(|body| body.iat).ok_or(KeyringError::Malformed)?;
            Ok::<_, KeyringError>(Past { key: keyring.current.clone(), since })
        };
        let mut keyring = Keyring::trust_first(first, &origin)?;
        if keyring.version != 1 {
            return Err(KeyringError::Version { expected: 1, found: keyring.version });
        }
        let mut keys = vec![past(&keyring, first)?];
        for signed in rest {
            keyring = keyring.advance(signed)?;
            keys.push(past(&keyring, signed)?);
        }
        if !keys.iter().any(|past| past.key.id() == anchor) {
            return Err(KeyringError::Untrusted);
        }
        Ok(Self(keys))
    }

    /// The key with this id, and its place in the order.
    #[must_use]
    pub fn find(&self, id: &KeyId) -> Option<(usize, &PublicKey)> {
        self.0.iter().map(|past| &past.key).enumerate().find(|(_, key)| key.id() == id)
    }

    /// The newest key. What is signed to be believed now, no other may have signed: an older one may have been stolen.
    #[must_use]
    pub fn newest(&self) -> Option<&PublicKey> {
        self.0.last().map(|past| &past.key)
    }

    /// When the key at this place was replaced, in seconds since 1970; `None` for the newest.
    #[must_use]
    pub fn replaced_at(&self, place: usize) -> Option<i64> {
        self.0.get(place + 1).map(|next| next.since)
    }
}

/// The version that a signed keyring claims, unverified.
#[must_use]
pub fn version_of(signed: &DsseJson) -> Option<u64> {
    let body: KeyringBody = serde_json::from_slice(&signed.envelope().ok()?.body).ok()?;
    Some(body.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_believed_step_by_step() {
        let keys: Vec<SigningKey> = (0..3).map(|_| SigningKey::generate().unwrap()).collect();
        let (one, first) = Keyring::first(&keys[0], 1).unwrap();
        let (two, second) = one.next(&keys[0], &keys[1], 2, false).unwrap();
        let (three, third) = two.next(&keys[1], &keys[2], 3, true).unwrap();

        let trusted = Keyring::trust_first(&first, keys[0].public().id()).unwrap();
        assert_eq!(trusted.advance_all(&[first.clone(), second.clone(), third.clone()]).unwrap(), three);
        assert!(matches!(trusted.advance(&third), Err(KeyringError::Untrusted)));
        assert!(Keyring::trust_first(&first, keys[1].public().id()).is_err());
        assert!(two.find(keys[0].public().id()).is_some());
        assert!(three.find(keys[1].public().id()).is_none(), "revoked");
        let chain = [first.clone(), second.clone(), third.clone()];
        for key in &keys {
            let history = History::believed(&chain, key.public().id()).unwrap();
            assert_eq!(history.find(keys[1].public().id()).map(|(place, _)| place), Some(1));
        }
        assert!(History::believed(&chain[..2], keys[2].public().id()).is_err());
        assert!(History::believed(&[first.clone(), third.clone()], keys[0].public().id()).is_err());
        assert!(History::believed(&chain[1..], keys[2].public().id()).is_err());

        let mut half = second.clone();
        half.signatures.remove(0);
        assert!(trusted.advance(&half).is_err(), "the old key must sign");
        let mut half = second;
        half.signatures.remove(1);
        assert!(trusted.advance(&half).is_err(), "the new key must sign");
    }
}
