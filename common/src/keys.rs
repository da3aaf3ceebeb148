//! RSA keys: generate, load, PEM, fingerprints, sign and verify.
//!
//! `aws-lc-rs` does all of it: it reads PKCS#1, PKCS#8 and SPKI, and its private operations are constant-time
//! (RUSTSEC-2023-0071 is why the `rsa` crate is not used). The algorithm is RSASSA-PSS with SHA-256 and a salt of 32
//! bytes (RFC 8017, section 8.1). It belongs to the key and is never read from a message.

use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, ParsedPublicKey, RSA_PSS_2048_8192_SHA256, RSA_PSS_SHA256, RsaKeyPair};

use crate::ids::{AgentId, KeyId};
use crate::limits::{RSA_BITS_MAX, RSA_BITS_MIN};

/// Why a key could not be read or made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not PEM, or PEM of something that is not a key.
    #[error("not a PEM key")]
    NotPem,
    /// PEM, but not an RSA key.
    #[error("not an RSA key")]
    NotRsa,
    /// The modulus is out of bounds.
    #[error("RSA keys must have {RSA_BITS_MIN} to {RSA_BITS_MAX} bits, this one has {0}")]
    Size(usize),
    /// The cryptographic library failed.
    #[error("the cryptographic library failed")]
    Failed,
}

/// A public RSA key that can verify. Cheap to clone.
#[derive(Clone)]
pub struct PublicKey {
    parsed: Arc<ParsedPublicKey>,
    spki: Arc<[u8]>,
    id: KeyId,
}

impl PublicKey {
    /// Reads `BEGIN PUBLIC KEY` (SPKI) or `BEGIN RSA PUBLIC KEY` (PKCS#1).
    ///
    /// # Errors
    /// When it isn't PEM, isn't RSA, or has fewer than 2,048 bits.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let block = pem::parse(text.trim()).map_err(|_| KeyError::NotPem)?;
        match block.tag() {
            "PUBLIC KEY" | "RSA PUBLIC KEY" => Self::from_der(block.contents()),
            _ => Err(KeyError::NotPem),
        }
    }

    /// Reads SPKI or PKCS#1 in DER.
    ///
    /// # Errors
    /// As [`PublicKey::from_pem`].
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        let key = aws_lc_rs::rsa::PublicKey::from_der(der).map_err(|_| KeyError::NotRsa)?;
        let modulus = key.modulus();
        let bytes = modulus.big_endian_without_leading_zero();
        let bits = bytes.len() * 8 - bytes.first().map_or(8, |b| b.leading_zeros() as usize);
        if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) {
            return Err(KeyError::Size(bits));
        }
        let spki: PublicKeyX509Der<'_> = key.as_der().map_err(|_| KeyError::Failed)?;
        let parsed =
            ParsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, spki.as_ref()).map_err(|_| KeyError::NotRsa)?;
        let id = KeyId::of_spki(spki.as_ref());
        Ok(Self { parsed: Arc::new(parsed), spki: spki.as_ref().into(), id })
    }

    /// SPKI in PEM: 64 columns, `\n`, no final newline.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        let text = pem::encode_config(&pem::Pem::new("PUBLIC KEY", self.spki.to_vec()), config);
        text.trim_end().to_owned()
    }

    /// The key's SPKI in DER.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// SHA-256 of the SPKI.
    #[must_use]
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// The agent that has this key.
    #[must_use]
    pub fn agent_id(&self) -> AgentId {
        self.id.agent_id()
    }

    /// Whether `signature` is this key's over `message`.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.parsed.verify_sig(message, signature).is_ok()
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PublicKey({})", self.id)
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}
impl Eq for PublicKey {}

/// A private RSA key that can sign. Cheap to clone; never printed.
#[derive(Clone)]
pub struct SigningKey {
    pair: Arc<RsaKeyPair>,
    public: PublicKey,
}

impl SigningKey {
    /// A new key of 3,072 bits. Takes about a third of a second.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = RsaKeyPair::generate(KeySize::Rsa3072).map_err(|_| KeyError::Failed)?;
        Self::from_pair(pair)
    }

    /// Reads `BEGIN PRIVATE KEY` (PKCS#8) or `BEGIN RSA PRIVATE KEY` (PKCS#1).
    ///
    /// # Errors
    /// When it isn't PEM, isn't RSA, or has fewer than 2,048 bits.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let block = pem::parse(text.trim()).map_err(|_| KeyError::NotPem)?;
        let pair = match block.tag() {
            "PRIVATE KEY" => RsaKeyPair::from_pkcs8(block.contents()),
            "RSA PRIVATE KEY" => RsaKeyPair::from_der(block.contents()),
            _ => return Err(KeyError::NotPem),
        };
        Self::from_pair(pair.map_err(|_| KeyError::NotRsa)?)
    }

    fn from_pair(pair: RsaKeyPair) -> Result<Self, KeyError> {
        use aws_lc_rs::signature::KeyPair as _;
        let public = PublicKey::from_der(pair.public_key().as_ref())?;
        Ok(Self { pair: Arc::new(pair), public })
    }

    /// PKCS#8 in PEM, for a file that only its owner may read.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn to_pem(&self) -> Result<String, KeyError> {
        let der: Pkcs8V1Der<'_> = self.pair.as_der().map_err(|_| KeyError::Failed)?;
        let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        Ok(pem::encode_config(&pem::Pem::new("PRIVATE KEY", der.as_ref()), config))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// RSASSA-PSS over `message`. About a millisecond of CPU at 3,072 bits.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let encoding: &'static dyn signature::RsaEncoding = &RSA_PSS_SHA256;
        let mut out = vec![0; self.pair.public_modulus_len()];
        self.pair.sign(encoding, &SystemRandom::new(), message, &mut out).map_err(|_| KeyError::Failed)?;
        Ok(out)
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.public.id)
    }
}
