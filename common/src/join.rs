//! Join tokens: `id.secret.fingerprint`, and the proof that an agent knows one without sending its secret.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::{digest, hmac};
use serde::{Deserialize, Serialize};

use crate::ids::{AgentId, KeyId};

/// A join token as an admin hands it out. Its secret is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Which token it is.
    pub id: String,
    secret: String,
    /// The controller's signing key; the agent believes no other. Absent in a static development token.
    pub fingerprint: Option<KeyId>,
}

/// The id of a static token (`SIGNET_JOIN_TOKEN`), which has no parts.
pub const STATIC_ID: &str = "static";

impl JoinToken {
    /// A token of three parts.
    #[must_use]
    pub fn new(id: String, secret: String, fingerprint: KeyId) -> Self {
        Self { id, secret, fingerprint: Some(fingerprint) }
    }

    /// What the controller keeps to check proofs: SHA-256 of the secret.
    #[must_use]
    pub fn verifier(&self) -> TokenVerifier {
        TokenVerifier(hex::encode(digest::digest(&digest::SHA256, self.secret.as_bytes())))
    }

    /// The token's text, for whoever may see it.
    #[must_use]
    pub fn reveal(&self) -> String {
        match &self.fingerprint {
            Some(fingerprint) => format!("{}.{}.{fingerprint}", self.id, self.secret),
            None => self.secret.clone(),
        }
    }

    /// The proof for one hello.
    #[must_use]
    pub fn prove(&self, controller_nonce: &str, agent: &AgentId) -> JoinProof {
        let tag = hmac::sign(&self.verifier().key(), &proven(&self.id, controller_nonce, agent));
        JoinProof { token_id: self.id.clone(), proof: hex::encode(tag) }
    }
}

/// Three parts that are no join token. Taken for a static one, it would believe any controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the join token has three parts, but they are not an id, a secret and a fingerprint: a part of it is missing"
)]
pub struct BadToken;

impl FromStr for JoinToken {
    type Err = BadToken;

    /// Three parts make a pinned token, and the last must be a fingerprint; any other text is a static one.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split('.').collect();
        let [id, secret, fingerprint] = parts[..] else {
            return Ok(Self { id: STATIC_ID.to_owned(), secret: text.to_owned(), fingerprint: None });
        };
        match fingerprint.parse() {
            Ok(fingerprint) if !id.is_empty() && !secret.is_empty() => {
                Ok(Self::new(id.to_owned(), secret.to_owned(), fingerprint))
            }
            _ => Err(BadToken),
        }
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({})", self.id)
    }
}

/// What proves knowledge of a token: HMAC-SHA-256, keyed with SHA-256 of the secret, over token id, the controller's
/// nonce and the agent's id. The secret itself never travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinProof {
    /// Which token.
    pub token_id: String,
    /// The HMAC in hex.
    pub proof: String,
}

/// SHA-256 of a token's secret in hex: enough to check a proof, and all that is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenVerifier(String);

impl TokenVerifier {
    /// From its stored form.
    #[must_use]
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// Its stored form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.0.as_bytes())
    }

    /// Whether the proof is right, in constant time.
    #[must_use]
    pub fn accepts(&self, proof: &JoinProof, controller_nonce: &str, agent: &AgentId) -> bool {
        hex::decode(&proof.proof).is_ok_and(|tag| {
            hmac::verify(&self.key(), &proven(&proof.token_id, controller_nonce, agent), &tag).is_ok()
        })
    }
}

fn proven(token_id: &str, controller_nonce: &str, agent: &AgentId) -> Vec<u8> {
    format!("signet-join\n{token_id}\n{controller_nonce}\n{agent}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_holds_for_its_nonce_and_agent_only() {
        let agent: AgentId = "a".repeat(40).parse().unwrap();
        let other: AgentId = "b".repeat(40).parse().unwrap();
        let token: JoinToken = format!("t1.s3cret.{}", "0".repeat(64)).parse().unwrap();
        let proof = token.prove("nonce", &agent);
        assert!(token.verifier().accepts(&proof, "nonce", &agent));
        assert!(!token.verifier().accepts(&proof, "other", &agent));
        assert!(!token.verifier().accepts(&proof, "nonce", &other));
        let static_token: JoinToken = "dev.token".parse().unwrap();
        assert_eq!((static_token.id.as_str(), static_token.fingerprint.is_none()), (STATIC_ID, true));
        assert!(!static_token.verifier().accepts(&proof, "nonce", &agent));
        assert!(!format!("{token:?}").contains("s3cret"));
        for cut in
            [format!("t1.s3cret.{}", "0".repeat(63)), "t1.s3cret.".into(), format!("t1..{}", "0".repeat(64))]
        {
            assert_eq!(cut.parse::<JoinToken>(), Err(BadToken), "{cut}");
        }
    }
}
