//! JSON Web Tokens (RFC 7519), HS256. A token only names a log-in; what its holder may do is read from the database at
//! every use.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use signet_common::time::Micros;
use uuid::Uuid;

use crate::error::{Error, Result};

/// What a token is for; one kind is never taken for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// Document 001: requests, for an hour.
    Access,
    /// Document 001: the next pair, once.
    Refresh,
    /// Document 003: requests, for a day; exchanged for the next.
    Single,
    /// The console's cookie.
    Cookie,
}

/// What a token says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Claims {
    /// Which kind.
    pub(super) typ: Kind,
    /// The log-in.
    pub(super) sid: Uuid,
    /// This token.
    pub(super) jti: Uuid,
    /// Issued, whole seconds since 1970.
    pub(super) iat: i64,
    /// The last second in which it counts.
    pub(super) exp: i64,
}

/// Makes and reads tokens. Holds the installation's key for them.
pub(super) struct Tokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
    rules: Validation,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens")
    }
}

impl Tokens {
    /// Tokens under this key, of at least 32 bytes.
    pub(super) fn new(key: &[u8]) -> Self {
        let mut rules = Validation::new(Algorithm::HS256);
        rules.set_required_spec_claims(&["exp"]);
        rules.leeway = 0;
        rules.validate_aud = false;
        Self { encoding: EncodingKey::from_secret(key), decoding: DecodingKey::from_secret(key), rules }
    }

    /// Signs a token.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub(super) fn issue(&self, typ: Kind, sid: Uuid, jti: Uuid, now: Micros, seconds: i64) -> Result<String> {
        let claims = Claims { typ, sid, jti, iat: now.seconds(), exp: now.seconds() + seconds };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding)
            .map_err(|e| Error::Internal(format!("a token: {e}")))
    }

    /// Reads a token of ours that has not expired.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`], whatever is wrong with it.
    pub(super) fn read(&self, token: &str) -> Result<Claims> {
        jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.rules)
            .map(|data| data.claims)
            .map_err(|_| Error::Unauthenticated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    #[test]
    fn nothing_but_our_own_signature_is_believed() {
        let tokens = Tokens::new(&[7; 32]);
        let now = Micros::now();
        let (sid, jti) = (Uuid::new_v4(), Uuid::now_v7());
        let good = tokens.issue(Kind::Access, sid, jti, now, 60).unwrap();
        assert_eq!(tokens.read(&good).unwrap().sid, sid);
        // Both documents show a header that begins with these letters or those: HS256, JWT.
        assert!(good.starts_with("eyJ"));
        let payload = good.split('.').nth(1).unwrap();
        let none = |header: &str| format!("{}.{payload}.", URL_SAFE_NO_PAD.encode(header));
        let bad = [
            none(r#"{"alg":"none","typ":"JWT"}"#),
            none(r#"{"alg":"None","typ":"JWT"}"#),
            none(r#"{"alg":"HS256","typ":"JWT"}"#),
            none(r#"{"typ":"JWT"}"#),
            Tokens::new(&[]).issue(Kind::Access, sid, jti, now, 60).unwrap(),
            Tokens::new(&[8; 32]).issue(Kind::Access, sid, jti, now, 60).unwrap(),
            tokens.issue(Kind::Access, sid, jti, now.plus_seconds(-120), 60).unwrap(),
            good[..good.len() - 1].to_owned(),
            String::new(),
            "a.b.c".to_owned(),
        ];
        for token in bad {
            assert!(matches!(tokens.read(&token), Err(Error::Unauthenticated)), "{token}");
        }
        let other = jsonwebtoken::encode(
            &Header::new(Algorithm::HS512),
            &tokens.read(&good).unwrap(),
            &EncodingKey::from_secret(&[7; 32]),
        );
        assert!(tokens.read(&other.unwrap()).is_err(), "the algorithm is ours to choose");
    }
}
