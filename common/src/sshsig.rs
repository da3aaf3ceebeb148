//! SSH signatures over a text (OpenSSH's PROTOCOL.sshsig), as `ssh-keygen -Y sign` makes them.
//!
//! `ssh-key` reads the formats, `aws-lc-rs` verifies. Taken are Ed25519, ECDSA on P-256, P-384 and P-521, RSA of 2,048
//! to 8,192 bits with SHA-256 or SHA-512, and the first two in security keys (FIDO), whose owner must have touched them.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA512, RsaPublicKeyComponents, UnparsedPublicKey,
    VerificationAlgorithm,
};
use ssh_key::public::{EcdsaPublicKey, KeyData};
use ssh_key::{Algorithm, EcdsaCurve, HashAlg, Mpint, PrivateKey, PublicKey, SshSig};

use crate::limits::{RSA_BITS_MAX, RSA_BITS_MIN, SSH_KEY_BYTES_MAX, SSH_SIGNATURE_BYTES_MAX};

/// What follows a security key's signature: one byte of flags, four of a counter.
const TOUCH_BYTES: usize = 5;
/// The flag that tells that someone touched the security key.
const USER_PRESENT: u8 = 0x01;

/// Why a text is no SSH public key that is taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// It can't be read.
    #[error("not an OpenSSH public key")]
    Malformed,
    /// A kind of key that is not taken; its name.
    #[error("keys of the type {0} are not supported")]
    Unsupported(String),
    /// An RSA key of that many bits.
    #[error("RSA keys must have {RSA_BITS_MIN} to {RSA_BITS_MAX} bits, this one has {0}")]
    Size(usize),
}

/// Why a signature doesn't count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSignature {
    /// It can't be read, or is too long.
    #[error("not an SSH signature")]
    Malformed,
    /// It was made for another purpose.
    #[error("the signature was made for the namespace {0:?}")]
    Namespace(String),
    /// The key inside it is not taken.
    #[error(transparent)]
    Key(#[from] BadKey),
    /// Nobody touched the security key.
    #[error("the security key was not touched")]
    NotTouched,
    /// It is not the key's over this text.
    #[error("the signature is not valid for this text")]
    Invalid,
}

/// An SSH public key of a kind that is taken. Two are equal when the key is; comments don't count.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SshPublicKey {
    data: KeyData,
    text: String,
}

impl SshPublicKey {
    /// Such as `SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU`, as `ssh-keygen -l` prints it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.data.fingerprint(HashAlg::Sha256).to_string()
    }

    fn of(data: KeyData) -> Result<Self, BadKey> {
        match &data {
            KeyData::Ed25519(_)
            | KeyData::SkEd25519(_)
            | KeyData::Ecdsa(_)
            | KeyData::SkEcdsaSha2NistP256(_) => {}
            KeyData::Rsa(key) => {
                let modulus = key.n.as_positive_bytes().ok_or(BadKey::Malformed)?;
                let unused = modulus.first().map_or(0, |first| first.leading_zeros() as usize);
                let bits = modulus.len() * 8 - unused;
                if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) {
                    return Err(BadKey::Size(bits));
                }
            }
            other => return Err(BadKey::Unsupported(other.algorithm().as_str().to_owned())),
        }
        let text = PublicKey::from(data.clone()).to_openssh().map_err(|_| BadKey::Malformed)?;
        Ok(Self { data, text: text.trim_end().to_owned() })
    }

    /// Whether `signature` is this key's over `message`.
    fn verifies(&self, message: &[u8], signature: &ssh_key::Signature) -> Result<(), BadSignature> {
        let bytes = signature.as_bytes();
        match (&self.data, signature.algorithm()) {
            (KeyData::Ed25519(key), Algorithm::Ed25519) => plain(&ED25519, key.as_ref(), message, bytes),
            (KeyData::SkEd25519(key), Algorithm::SkEd25519) => {
                let (touched, bytes) = touched(key.application(), message, bytes)?;
                plain(&ED25519, key.public_key().as_ref(), &touched, bytes)
            }
            (KeyData::Ecdsa(key), Algorithm::Ecdsa { curve }) if key.curve() == curve => {
                ecdsa(key, message, bytes)
            }
            (KeyData::SkEcdsaSha2NistP256(key), Algorithm::SkEcdsaSha2NistP256) => {
                let (touched, bytes) = touched(key.application(), message, bytes)?;
                ecdsa(&EcdsaPublicKey::NistP256(*key.ec_point()), &touched, bytes)
            }
            (KeyData::Rsa(key), Algorithm::Rsa { hash: Some(hash) }) => rsa(key, hash, message, bytes),
            _ => Err(BadSignature::Invalid),
        }
    }
}

impl FromStr for SshPublicKey {
    type Err = BadKey;

    /// Reads `ssh-ed25519 AAAA… comment`.
    fn from_str(line: &str) -> Result<Self, BadKey> {
        let line = line.trim();
        if line.len() > SSH_KEY_BYTES_MAX || line.contains(['\n', '\r']) {
            return Err(BadKey::Malformed);
        }
        let key = PublicKey::from_openssh(line).map_err(|_| BadKey::Malformed)?;
        Self::of(key.into())
    }
}

impl fmt::Display for SshPublicKey {
    /// Type and key, without a comment.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A private key can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPrivateKey {
    /// It is no private key in OpenSSH's own format.
    #[error("not a private key in OpenSSH's format")]
    Malformed,
    /// Nobody would be there to type its passphrase.
    #[error("the private key has a passphrase")]
    Locked,
}

/// The fingerprint of a private key's public half, as `ssh-keygen -l` prints it.
///
/// # Errors
/// [`BadPrivateKey`]: it can't be used by a program alone.
pub fn private_key_fingerprint(text: &str) -> Result<String, BadPrivateKey> {
    let key = PrivateKey::from_openssh(text).map_err(|_| BadPrivateKey::Malformed)?;
    if key.is_encrypted() {
        return Err(BadPrivateKey::Locked);
    }
    Ok(key.public_key().fingerprint(HashAlg::Sha256).to_string())
}

/// The key that signed `message` for `namespace`; whose that is, the caller must know. `armored` is what `ssh-keygen -Y
/// sign` wrote.
///
/// # Errors
/// [`BadSignature`]: then nobody signed.
pub fn verify(armored: &str, namespace: &str, message: &[u8]) -> Result<SshPublicKey, BadSignature> {
    if armored.len() > SSH_SIGNATURE_BYTES_MAX {
        return Err(BadSignature::Malformed);
    }
    let signed = SshSig::from_pem(armored.trim()).map_err(|_| BadSignature::Malformed)?;
    let key = SshPublicKey::of(signed.public_key().clone())?;
    let block = pem::parse(armored.trim()).map_err(|_| BadSignature::Malformed)?;
    if !signed.reserved().is_empty() || written(&signed)? != block.contents() {
        return Err(BadSignature::Malformed);
    }
    if signed.namespace() != namespace {
        return Err(BadSignature::Namespace(signed.namespace().to_owned()));
    }
    let text =
        SshSig::signed_data(namespace, signed.hash_alg(), message).map_err(|_| BadSignature::Malformed)?;
    key.verifies(&text, signed.signature())?;
    Ok(key)
}

/// The only bytes that say this: `ssh-key` overlooks wrong lengths.
fn written(signed: &SshSig) -> Result<Vec<u8>, BadSignature> {
    let string = |bytes: &[u8]| match u32::try_from(bytes.len()) {
        Ok(length) => Ok([&length.to_be_bytes(), bytes].concat()),
        Err(_) => Err(BadSignature::Malformed),
    };
    let key = PublicKey::from(signed.public_key().clone()).to_bytes().map_err(|_| BadSignature::Malformed)?;
    let algorithm = signed.algorithm();
    let bytes = signed.signature_bytes();
    let trailer = match algorithm {
        Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256 => TOUCH_BYTES,
        _ => 0,
    };
    let at = bytes.len().checked_sub(trailer).ok_or(BadSignature::Malformed)?;
    let (bytes, trailer) = bytes.split_at(at);
    let signature = [string(algorithm.as_str().as_bytes())?, string(bytes)?, trailer.to_vec()].concat();
    let parts = [
        b"SSHSIG".to_vec(),
        SshSig::VERSION.to_be_bytes().to_vec(),
        string(&key)?,
        string(signed.namespace().as_bytes())?,
        string(signed.reserved())?,
        string(signed.hash_alg().as_str().as_bytes())?,
        string(&signature)?,
    ];
    Ok(parts.concat())
}

fn plain(
    algorithm: &'static dyn VerificationAlgorithm,
    key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<(), BadSignature> {
    UnparsedPublicKey::new(algorithm, key).verify(message, signature).map_err(|_| BadSignature::Invalid)
}

/// SSH writes `r` and `s` as two numbers of their own length; the verifier wants them side by side, filled up.
fn ecdsa(key: &EcdsaPublicKey, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
    let (algorithm, size) = match key.curve() {
        EcdsaCurve::NistP256 => (&ECDSA_P256_SHA256_FIXED, 32),
        EcdsaCurve::NistP384 => (&ECDSA_P384_SHA384_FIXED, 48),
        EcdsaCurve::NistP521 => (&ECDSA_P521_SHA512_FIXED, 66),
    };
    let (r, rest) = number(signature)?;
    let (s, rest) = number(rest)?;
    if !rest.is_empty() {
        return Err(BadSignature::Malformed);
    }
    let mut fixed = filled(&r, size)?;
    fixed.extend(filled(&s, size)?);
    plain(algorithm, key.as_sec1_bytes(), message, &fixed)
}

fn rsa(
    key: &ssh_key::public::RsaPublicKey,
    hash: HashAlg,
    message: &[u8],
    signature: &[u8],
) -> Result<(), BadSignature> {
    let parameters = match hash {
        HashAlg::Sha256 => &RSA_PKCS1_2048_8192_SHA256,
        HashAlg::Sha512 => &RSA_PKCS1_2048_8192_SHA512,
        _ => return Err(BadSignature::Invalid),
    };
    let positive = |number: &Mpint| number.as_positive_bytes().map(<[u8]>::to_vec);
    let (Some(n), Some(e)) = (positive(&key.n), positive(&key.e)) else {
        return Err(BadSignature::Malformed);
    };
    let size = n.len();
    let filled = if signature.len() < size {
        // Some programs leave out leading zeros, and OpenSSH takes that.
        let mut filled = vec![0; size - signature.len()];
        filled.extend(signature);
        filled
    } else {
        signature.to_vec()
    };
    RsaPublicKeyComponents { n, e }.verify(parameters, message, &filled).map_err(|_| BadSignature::Invalid)
}

/// What a security key signs (PROTOCOL.u2f), and the signature alone.
fn touched<'a>(
    application: &str,
    message: &[u8],
    signature: &'a [u8],
) -> Result<(Vec<u8>, &'a [u8]), BadSignature> {
    let at = signature.len().checked_sub(TOUCH_BYTES).ok_or(BadSignature::Malformed)?;
    let (signature, trailer) = signature.split_at(at);
    if trailer.first().is_none_or(|flags| flags & USER_PRESENT == 0) {
        return Err(BadSignature::NotTouched);
    }
    let parts = [digest(&SHA256, application.as_bytes()), digest(&SHA256, message)];
    Ok(([parts[0].as_ref(), trailer, parts[1].as_ref()].concat(), signature))
}

/// One number at the beginning, without leading zeros, and what follows it.
fn number(bytes: &[u8]) -> Result<(Vec<u8>, &[u8]), BadSignature> {
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or(BadSignature::Malformed)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| BadSignature::Malformed)?;
    let (number, rest) = rest.split_at_checked(length).ok_or(BadSignature::Malformed)?;
    let number = Mpint::from_bytes(number).map_err(|_| BadSignature::Malformed)?;
    Ok((number.as_positive_bytes().ok_or(BadSignature::Malformed)?.to_vec(), rest))
}

fn filled(number: &[u8], size: usize) -> Result<Vec<u8>, BadSignature> {
    let missing = size.checked_sub(number.len()).ok_or(BadSignature::Malformed)?;
    let mut filled = vec![0; missing];
    filled.extend(number);
    Ok(filled)
}
