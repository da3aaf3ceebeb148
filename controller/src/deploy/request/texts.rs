//! Texts of a request that git, ssh or a path will see.

use std::collections::BTreeSet;
use std::net::IpAddr;

use signet_common::Hostname;

use crate::limits::{GIT_REF_BYTES_MAX, GIT_URL_BYTES_MAX, PATH_BYTES_MAX, SSH_USER_BYTES_MAX};
use crate::repositories;

/// Nothing of a template language, and nothing that moves a cursor.
fn plain(text: &str) -> bool {
    !text.contains(char::is_control) && !["{{", "{%", "{#"].iter().any(|open| text.contains(open))
}

/// The address of a repository.
pub(super) fn repository(url: &str, protocols: &BTreeSet<String>) -> Result<String, String> {
    if url.len() > GIT_URL_BYTES_MAX {
        return Err(format!("must have at most {GIT_URL_BYTES_MAX} bytes"));
    }
    if !plain(url) || url.contains(char::is_whitespace) || url.starts_with('-') {
        return Err("must be a URL for SSH or HTTPS".into());
    }
    // What is known of a repository is found by its address, whatever carries the job.
    if repositories::strays(url) {
        return Err("must have no part . or ..".into());
    }
    let allowed = |scheme: &str| protocols.contains(scheme);
    let Some((scheme, rest)) = url.split_once("://") else {
        // git@host:path
        let parts = url.split_once(':').filter(|(_, path)| !path.is_empty() && !path.starts_with([':', '-']));
        let place = parts.and_then(|(place, _)| place.split_once('@'));
        let good = place.is_some_and(|(name, at)| user(name).is_ok() && host(at).is_ok()) && allowed("ssh");
        return if good { Ok(url.to_owned()) } else { Err("must be a URL for SSH or HTTPS".into()) };
    };
    if !allowed(scheme) {
        return Err(format!(
            "must be a URL for SSH or HTTPS: '{}' is not allowed here",
            scheme.escape_debug()
        ));
    }
    if scheme == "file" {
        return if rest.starts_with('/') {
            Ok(url.to_owned())
        } else {
            Err("must name an absolute path".into())
        };
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (userinfo, place) = authority.rsplit_once('@').map_or((None, authority), |(u, p)| (Some(u), p));
    match userinfo {
        Some(_) if scheme != "ssh" => return Err("must not hold a credential: use `credential`".into()),
        Some(name) if name.contains(':') => return Err("must not hold a password: use `credential`".into()),
        Some(name) if user(name).is_err() => return Err("must be a URL for SSH or HTTPS".into()),
        _ => {}
    }
    let (name, port) = match place.rsplit_once(':').filter(|_| !place.ends_with(']')) {
        Some((name, port)) => (name, Some(port)),
        None => (place, None),
    };
    let name = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
    let good = host(name).is_ok() && port.is_none_or(|p| p.parse::<u16>().is_ok()) && !path.is_empty();
    if good { Ok(url.to_owned()) } else { Err("must be a URL for SSH or HTTPS".into()) }
}

/// A branch, tag or commit, by git's own rules for names (git-check-ref-format).
pub(super) fn reference(text: &str) -> Result<String, String> {
    let parts = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    let good = text.len() <= GIT_REF_BYTES_MAX
        && plain(text)
        && !text.starts_with(['-', '+'])
        && !text.contains(|c: char| c.is_whitespace() || "~^:?*[\\".contains(c))
        && !text.contains("..")
        && !text.contains("@{")
        && text != "@"
        && !text.ends_with('.')
        && text.split('/').all(parts);
    if good { Ok(text.to_owned()) } else { Err("must be the name of a branch or tag".into()) }
}

/// An absolute path, without what makes two names of one place.
pub(super) fn path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err("must be an absolute path".into());
    }
    if text.len() > PATH_BYTES_MAX || !plain(text) {
        return Err("must be a plain path".into());
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return Err("must not contain '..'".into());
    }
    if parts.is_empty() {
        return Err("must not be '/'".into());
    }
    Ok(format!("/{}", parts.join("/")))
}

/// An address, or a name as DNS has it.
pub(super) fn host(text: &str) -> Result<String, String> {
    if text.parse::<IpAddr>().is_ok() || text.parse::<Hostname>().is_ok() {
        Ok(text.to_owned())
    } else {
        Err("must be an IP address or a DNS name".into())
    }
}

pub(super) fn user(text: &str) -> Result<String, String> {
    let good = text.len() <= SSH_USER_BYTES_MAX
        && !text.starts_with('-')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+@\\$".contains(&b));
    if good { Ok(text.to_owned()) } else { Err("must be the name of an account".into()) }
}
