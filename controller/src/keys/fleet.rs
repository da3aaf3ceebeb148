//! The fleet's keys as one controller knows them: a keyring, the chain that leads to it, and what signs.

use std::collections::BTreeMap;

use signet_common::SigningKey;
use signet_common::envelope::{DsseJson, SealError};
use signet_common::keyring::Keyring;

use super::{LoadError, other};

/// One version of the keyring, with every version before it and the signing keys that are still at hand. Never changes:
/// who signs and who decides to whom it may go take the same one.
#[derive(Clone)]
pub struct FleetKeys {
    keyring: Keyring,
    chain: Vec<DsseJson>,
    signing: SigningKey,
    /// Those before, by version: hosts that are behind believe nothing else.
    older: BTreeMap<u64, SigningKey>,
}

impl std::fmt::Debug for FleetKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FleetKeys({})", self.version())
    }
}

impl FleetKeys {
    /// Takes what is stored, after it was proven: each link by the one before, and the newest key by the newest link.
    pub(super) fn new(chain: Vec<DsseJson>, mut keys: BTreeMap<u64, SigningKey>) -> Result<Self, LoadError> {
        let keyring = believed(&chain)?;
        let signing = keys.remove(&keyring.version());
        let signing =
            signing.ok_or_else(|| other("the newest keyring's signing key is not in the database"))?;
        if keyring.current() != signing.public() {
            return Err(other("the newest keyring names another signing key"));
        }
        Ok(Self { keyring, chain, signing, older: keys })
    }

    /// The next version, with a new key, and that version's signed keyring. `revoke` leaves no key before it believed.
    pub(super) fn rotated(&self, new: SigningKey, iat: i64, revoke: bool) -> Result<Self, SealError> {
        let (keyring, signed) = self.keyring.next(&self.signing, &new, iat, revoke)?;
        let mut chain = self.chain.clone();
        chain.push(signed);
        let mut older = self.older.clone();
        older.insert(self.version(), self.signing.clone());
        Ok(Self { keyring, chain, signing: new, older })
    }

    /// The keyring's version.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.keyring.version()
    }

    /// The keyring.
    #[must_use]
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// Every version of the keyring, signed, oldest first.
    #[must_use]
    pub fn chain(&self) -> &[DsseJson] {
        &self.chain
    }

    /// One version of the keyring, signed.
    #[must_use]
    pub fn link(&self, version: u64) -> Option<&DsseJson> {
        self.chain.get(usize::try_from(version.checked_sub(1)?).ok()?)
    }

    /// The key that signs now.
    #[must_use]
    pub fn signing(&self) -> &SigningKey {
        &self.signing
    }

    /// The key that signs for hosts that hold this version: its own, if that is still at hand.
    #[must_use]
    pub fn signing_for(&self, version: u64) -> &SigningKey {
        self.older.get(&version).unwrap_or(&self.signing)
    }

    pub(super) fn older(&self) -> &BTreeMap<u64, SigningKey> {
        &self.older
    }
}

/// A chain of our own: its first link is believed as it stands, the others by the one before.
fn believed(chain: &[DsseJson]) -> Result<Keyring, LoadError> {
    let (first, rest) = chain.split_first().ok_or_else(|| other("the keyring was made and is not there"))?;
    let origin = first.envelope().ok().and_then(|e| e.keyid.parse().ok());
    let origin = origin.ok_or_else(|| other("the first keyring names no key"))?;
    Ok(Keyring::trust_first(first, &origin)?.advance_all(rest)?)
}
