//! The one domain error. Each HTTP surface renders it in its own dialect (`http/dialect/`), and only there does it get
//! a status code.

use crate::store::{AsStoreError, StoreError};

/// What went wrong, in words for the caller. `Internal` alone keeps its text for the log.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The input is wrong; names the field where there is one.
    #[error("{message}")]
    Invalid {
        /// The field, as `targets[1].port`, or empty.
        field: String,
        /// What is wrong with it.
        message: String,
    },
    /// Several fields are wrong: each with what is wrong with it.
    #[error("the request has fields that are wrong")]
    InvalidFields(Vec<(String, String)>),
    /// No or a wrong credential.
    #[error("Not authenticated")]
    Unauthenticated,
    /// A proof of its own (a signature, a token) that does not hold; says which.
    #[error("{0}")]
    Refused(String),
    /// A credential without this right.
    #[error("{0}")]
    Forbidden(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// It contradicts what is there.
    #[error("{0}")]
    Conflict(String),
    /// Well-formed, but refused by a rule of the domain.
    #[error("{0}")]
    Unprocessable(String),
    /// The wrong method; carries the right ones for `Allow`.
    #[error("Method Not Allowed")]
    MethodNotAllowed(String),
    /// Larger than allowed; says what and how much.
    #[error("{0}")]
    TooLarge(String),
    /// Not a media type that this surface reads.
    #[error("{0}")]
    UnsupportedMediaType(String),
    /// Too many requests; seconds until the next.
    #[error("Too Many Requests")]
    TooManyRequests(u64),
    /// The database or the broker is away; seconds until a retry makes sense.
    #[error("{message}")]
    Unavailable {
        /// What is away.
        message: String,
        /// Seconds.
        retry_after: u64,
    },
    /// The database's word: away or busy is 503, all else is a bug. The text goes to the log, never to the caller.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A bug. The text goes to the log, never to the caller.
    #[error("internal error: {0}")]
    Internal(String),
}

/// The result of everything that a request does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Bad input in one field.
    #[must_use]
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), message: message.into() }
    }
}

impl Error {
    /// What the audit trail says of it: who sends a wrong value may have sent a secret in the wrong place, and what is
    /// sealed stays.
    #[must_use]
    pub fn for_trail(&self) -> String {
        match self {
            Self::Invalid { field, .. } if field.is_empty() => "not valid".into(),
            Self::Invalid { field, .. } => format!("{field} is not valid"),
            Self::InvalidFields(all) => {
                let fields: Vec<&str> = all.iter().map(|(field, _)| field.as_str()).collect();
                format!("not valid: {}", fields.join(", "))
            }
            other => other.to_string(),
        }
    }
}

impl AsStoreError for Error {
    fn as_store_error(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}
