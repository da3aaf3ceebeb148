//! Secrets for one host: HPKE (RFC 9180) in base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-128-GCM.
//!
//! A sealed field is bound to the message's `jti`, the agent and the field's name, so that it can't be moved elsewhere.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_128 as SUITE;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke as _, HpkePrivateKey, HpkePublicKey};
use serde::{Deserialize, Serialize};

use crate::ids::{AgentId, Jti};

/// A sealed secret, both parts in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The encapsulated key (`enc` in RFC 9180).
    pub enc: String,
    /// The ciphertext (`ct` in RFC 9180).
    pub ct: String,
}

/// The secret could not be sealed or opened. Says no more, so that it can be logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sealed secret can't be sealed or opened")]
pub struct SealFailed;

/// What a secret is bound to.
#[derive(Debug, Clone, Copy)]
pub struct Binding<'a> {
    /// The message that carries it.
    pub jti: &'a Jti,
    /// The only agent it is for.
    pub agent: &'a AgentId,
    /// The field's name.
    pub field: &'a str,
}

impl Binding<'_> {
    fn info(&self) -> Vec<u8> {
        format!("signet-seal-v1\n{}\n{}\n{}", self.jti, self.agent, self.field).into_bytes()
    }
}

/// An agent's X25519 key, made with its log.
pub struct SealingKey {
    private: HpkePrivateKey,
    public: HpkePublicKey,
}

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealingKey")
    }
}

impl SealingKey {
    /// A new key pair.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn generate() -> Result<Self, SealFailed> {
        let (public, private) = SUITE.generate_key_pair().map_err(|_| SealFailed)?;
        Ok(Self { private, public })
    }

    /// The public half in base64, as it stands in a hello.
    #[must_use]
    pub fn public(&self) -> String {
        STANDARD.encode(&self.public.0)
    }

    /// Both halves in one text, for a file that only its owner may read.
    #[must_use]
    pub fn to_stored(&self) -> String {
        format!("{}.{}", STANDARD.encode(self.private.secret_bytes()), self.public())
    }

    /// Reads what [`SealingKey::to_stored`] wrote.
    ///
    /// # Errors
    /// When the text is something else.
    pub fn from_stored(text: &str) -> Result<Self, SealFailed> {
        let (private, public) = text.split_once('.').ok_or(SealFailed)?;
        let private = HpkePrivateKey::from(STANDARD.decode(private).map_err(|_| SealFailed)?);
        let public = HpkePublicKey(STANDARD.decode(public).map_err(|_| SealFailed)?);
        Ok(Self { private, public })
    }

    /// Opens what was sealed to this key.
    ///
    /// # Errors
    /// When it was sealed to another key, or bound to something else.
    pub fn open(&self, sealed: &Sealed, binding: Binding<'_>) -> Result<Vec<u8>, SealFailed> {
        let enc = EncapsulatedSecret(STANDARD.decode(&sealed.enc).map_err(|_| SealFailed)?);
        let ct = STANDARD.decode(&sealed.ct).map_err(|_| SealFailed)?;
        SUITE.open(&enc, &binding.info(), &[], &ct, &self.private).map_err(|_| SealFailed)
    }
}

/// Seals a secret to an agent's public key (base64).
///
/// # Errors
/// When the key is not an X25519 key.
pub fn seal(secret: &[u8], to: &str, binding: Binding<'_>) -> Result<Sealed, SealFailed> {
    let public = HpkePublicKey(STANDARD.decode(to).map_err(|_| SealFailed)?);
    let (enc, ct) = SUITE.seal(&binding.info(), &[], secret, &public).map_err(|_| SealFailed)?;
    Ok(Sealed { enc: STANDARD.encode(&enc.0), ct: STANDARD.encode(ct) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_key_and_binding_open_it() {
        let (mine, other) = (SealingKey::generate().unwrap(), SealingKey::generate().unwrap());
        let (jti, agent) = (Jti::generate(), "a".repeat(40).parse::<AgentId>().unwrap());
        let binding = Binding { jti: &jti, agent: &agent, field: "broker" };
        let sealed = seal(b"secret", &mine.public(), binding).unwrap();
        assert_eq!(mine.open(&sealed, binding).unwrap(), b"secret");
        let stored = SealingKey::from_stored(&mine.to_stored()).unwrap();
        assert_eq!(
            (stored.open(&sealed, binding).unwrap(), stored.public()),
            (b"secret".to_vec(), mine.public())
        );
        assert!(SealingKey::from_stored("x").is_err());
        assert!(other.open(&sealed, binding).is_err());
        assert!(mine.open(&sealed, Binding { field: "other", ..binding }).is_err());
        assert!(mine.open(&sealed, Binding { jti: &Jti::generate(), ..binding }).is_err());
        assert!(seal(b"x", "AAAA", binding).is_err());
    }
}
