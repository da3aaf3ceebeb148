//! Passwords: argon2id (RFC 9106) with the parameters that OWASP names for servers (19 MiB, two passes, one lane).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use tokio::sync::Semaphore;

use crate::error::{Error, Result};
use crate::limits::{
    PASSWORD_BYTES_MAX, PASSWORD_CHARS_MIN, PASSWORD_CHECKS_MAX, PASSWORD_WAIT_SECONDS_MAX,
    RETRY_AFTER_SECONDS,
};
use crate::settings::Secret;

/// How many passwords were checked: one for every log-in, whether there is such an account or not.
pub static CHECKS: AtomicU64 = AtomicU64::new(0);

/// Each check takes 19 MiB and a core for some ten milliseconds.
static ROOM: Semaphore = Semaphore::const_new(PASSWORD_CHECKS_MAX);

/// What is checked against when there is no such account, so that the answer takes as long.
static NOBODY: LazyLock<Arc<str>> = LazyLock::new(|| hashed("nobody").unwrap_or_default().into());

/// What is wrong with a new password, if anything: 8 characters or more, at most 1,024 bytes, and not the name itself.
pub(super) fn check(password: &str, username: &str) -> std::result::Result<(), String> {
    if password.chars().count() < PASSWORD_CHARS_MIN {
        return Err(format!("must have at least {PASSWORD_CHARS_MIN} characters"));
    }
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(format!("must have at most {PASSWORD_BYTES_MAX} bytes"));
    }
    if password.eq_ignore_ascii_case(username) {
        return Err("must not be the username".into());
    }
    Ok(())
}

fn hashed(password: &str) -> Result<String> {
    let hash: PasswordHash = Argon2::default()
        .hash_password(password.as_bytes())
        .map_err(|e| Error::Internal(format!("argon2: {e}")))?;
    Ok(hash.to_string())
}

/// The PHC string of a password.
pub(super) async fn hash(password: &Secret) -> Result<String> {
    let password = password.clone();
    at_work(move || hashed(password.reveal())).await?
}

/// Whether this is the password of that hash. Without one it takes as long, and is not.
pub(super) async fn verify(password: &Secret, hash: Option<&str>) -> Result<bool> {
    let known = hash.is_some();
    let (password, hash) = (password.clone(), hash.map_or_else(|| NOBODY.clone(), Arc::from));
    CHECKS.fetch_add(1, Ordering::Relaxed);
    let right = at_work(move || {
        let parsed =
            PasswordHash::new(&hash).map_err(|e| Error::Internal(format!("a stored password: {e}")))?;
        Ok::<_, Error>(Argon2::default().verify_password(password.reveal().as_bytes(), &parsed).is_ok())
    })
    .await??;
    Ok(right && known)
}

/// Runs on a thread for blocking work, few at a time; who would wait too long is told to come again.
async fn at_work<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let wait = Duration::from_secs(PASSWORD_WAIT_SECONDS_MAX);
    let room = tokio::time::timeout(wait, ROOM.acquire()).await;
    let Ok(Ok(_room)) = room else {
        return Err(Error::Unavailable {
            message: "too many log-ins at the same time".into(),
            retry_after: RETRY_AFTER_SECONDS,
        });
    };
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::Internal(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_password_itself_is_right() {
        let hash = hash(&Secret::new("correct horse")).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(
            NOBODY.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "equal parameters for who does not exist"
        );
        assert!(verify(&Secret::new("correct horse"), Some(&hash)).await.unwrap());
        assert!(!verify(&Secret::new("correct horse "), Some(&hash)).await.unwrap());
        assert!(!verify(&Secret::new("nobody"), None).await.unwrap());
    }

    #[test]
    fn rules() {
        assert!(check("12345678", "bob").is_ok());
        assert!(check("1234567", "bob").is_err());
        assert!(check("bob-bob-bob", "Bob-bob-bob").is_err());
        assert!(check(&"x".repeat(PASSWORD_BYTES_MAX + 1), "bob").is_err());
    }
}
