//! Who is asking. Until accounts are kept in the database, one API token with every right is known.

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::FromRequestParts;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;

use crate::error::Error;
use crate::limits::TOKEN_BYTES_MAX;
use crate::settings::Secret;

/// What an account may do. Later variants may do less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Everything.
    Admin,
    /// Commands, deploys, runs and approvals; reads everything.
    Operator,
    /// Reads.
    Viewer,
    /// The own profile, and reading clusters.
    User,
}

/// The account behind a request. As an argument of a handler it can only be there when the credential was right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The account's name.
    pub name: String,
    /// What it may do.
    pub role: Role,
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        parts.extensions.get::<Self>().cloned().ok_or(Error::Unauthenticated)
    }
}

/// Knows the credentials. Holds digests only.
#[derive(Clone)]
pub struct Credentials {
    admin_token: Arc<[u8]>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

impl Credentials {
    /// Knows one token, an admin's.
    #[must_use]
    pub fn new(admin_token: &Secret) -> Self {
        Self { admin_token: digest(&SHA256, admin_token.reveal().as_bytes()).as_ref().into() }
    }

    /// The account whose token stands in `Authorization: Bearer` or in `X-API-Key`.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] for no or a wrong token.
    pub fn check(&self, headers: &HeaderMap) -> Result<Caller, Error> {
        let token = token(headers).filter(|t| t.len() <= TOKEN_BYTES_MAX).ok_or(Error::Unauthenticated)?;
        let found = digest(&SHA256, token.as_bytes());
        verify_slices_are_equal(found.as_ref(), &self.admin_token).map_err(|_| Error::Unauthenticated)?;
        Ok(Caller { name: "admin".into(), role: Role::Admin })
    }
}

fn token(headers: &HeaderMap) -> Option<&str> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| token.trim());
    }
    headers.get("x-api-key")?.to_str().ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_is_believed() {
        let known = Credentials::new(&Secret::new("s3cret"));
        let check = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            known.check(&headers).is_ok()
        };
        assert!(check("authorization", "Bearer s3cret"));
        assert!(check("authorization", "bearer  s3cret"));
        assert!(check("x-api-key", "s3cret"));
        for wrong in ["", "s3cre", "s3cret2", "S3cret"] {
            assert!(!check("x-api-key", wrong));
            assert!(!check("authorization", &format!("Bearer {wrong}")));
        }
        assert!(!check("authorization", "Basic s3cret"));
        assert!(!check("authorization", "s3cret"));
        assert!(known.check(&HeaderMap::new()).is_err());
    }
}
