//! Texts that git or a file system will see.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits::{DEPLOY_PATH_BYTES_MAX, DEPLOY_REF_BYTES_MAX, DEPLOY_URL_BYTES_MAX};

/// A text that is not what a deployment needs, and why not, for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {why}")]
pub struct BadDeploy {
    /// Which kind of text it should be.
    pub what: &'static str,
    /// What is wrong with it. Never repeats the text: it may hold a password.
    pub why: &'static str,
}

macro_rules! deploy_text {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// As text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = BadDeploy;
            fn from_str(text: &str) -> Result<Self, BadDeploy> {
                Self::try_from(text.to_owned())
            }
        }
        impl TryFrom<String> for $name {
            type Error = BadDeploy;
            fn try_from(text: String) -> Result<Self, BadDeploy> {
                match $check(&text) {
                    Ok(()) => Ok(Self(text)),
                    Err(why) => Err(BadDeploy { what: $what, why }),
                }
            }
        }
        impl From<$name> for String {
            fn from(text: $name) -> Self {
                text.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
    };
}

deploy_text!(
    /// A repository's address without credentials: `https://host/path`, `ssh://[user@]host[:port]/path`,
    /// `user@host:path`, and where allowed `http://…`, `git://…`, `file:///path`.
    GitUrl, "the repository", git_url
);
deploy_text!(
    /// The name of a branch or tag (or a whole one below `refs/`), by git's own rules.
    GitRef, "the reference", git_ref
);
deploy_text!(
    /// A whole commit id: 40 (SHA-1) or 64 (SHA-256) lower-case hex digits.
    CommitId, "the commit", commit_id
);
deploy_text!(
    /// An absolute path in its plain form: no `.`, `..`, empty part, control character, `.git` or `.ssh`.
    DeployPath, "the path", deploy_path
);
deploy_text!(
    /// A path below a release that all releases share, relative and plain.
    SharedPath, "the shared path", shared_path
);

impl GitRef {
    /// What more to say when there is no such branch or tag: it looks like the begin of a commit's id, which names none.
    /// With what separates it from that, or empty.
    #[must_use]
    pub fn hint(text: &str) -> &'static str {
        let hex = text.bytes().all(|b| b.is_ascii_hexdigit());
        if hex && (7..40).contains(&text.len()) { "; a commit needs its whole id" } else { "" }
    }
}

/// A transport of git.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP over TLS.
    Https,
    /// SSH, also in the form `user@host:path`.
    Ssh,
    /// Plain HTTP.
    Http,
    /// git's own daemon.
    Git,
    /// A directory of the host itself.
    File,
}

impl Protocol {
    /// Allowed unless configured otherwise.
    pub const DEFAULT: [Self; 2] = [Self::Https, Self::Ssh];
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Https, Self::Ssh, Self::Http, Self::Git, Self::File];

    /// As in an address, and as git names it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Ssh => "ssh",
            Self::Http => "http",
            Self::Git => "git",
            Self::File => "file",
        }
    }
}

impl FromStr for Protocol {
    type Err = BadDeploy;

    fn from_str(text: &str) -> Result<Self, BadDeploy> {
        Self::ALL
            .into_iter()
            .find(|protocol| protocol.as_str() == text)
            .ok_or(BadDeploy { what: "the protocol", why: "must be one of https, ssh, http, git, file" })
    }
}

impl GitUrl {
    /// Over what it is reached.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        let scheme = self.0.split_once("://").map_or("ssh", |(scheme, _)| scheme);
        scheme.parse().unwrap_or(Protocol::Ssh)
    }

    /// `scheme://host[:port]` of an address with a scheme and a host.
    #[must_use]
    pub fn origin(&self) -> Option<&str> {
        let start = self.0.find("://")? + 3;
        let end = self.0[start..].find('/').map_or(self.0.len(), |at| start + at);
        (end > start).then(|| &self.0[..end])
    }

    /// Whether it is this very host over plain HTTP, where nobody listens on the way.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let host = self.origin().and_then(|origin| origin.split_once("://")).map_or("", |(_, host)| host);
        let host = host.strip_prefix("[::1]").map_or(host.split(':').next().unwrap_or(host), |_| "::1");
        matches!(host, "localhost" | "::1")
            || host.parse().is_ok_and(|ip: core::net::Ipv4Addr| ip.is_loopback())
    }
}

fn plain(text: &str, longest: usize) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("is empty");
    }
    if text.len() > longest {
        return Err("is too long");
    }
    if text.chars().any(char::is_control) {
        return Err("has a control character in it");
    }
    if text.starts_with('-') {
        return Err("begins with a dash");
    }
    Ok(())
}

fn git_url(text: &str) -> Result<(), &'static str> {
    plain(text, DEPLOY_URL_BYTES_MAX)?;
    if text.contains(|c: char| c.is_whitespace() || matches!(c, '\\' | '?' | '#' | '"' | '\'' | '`')) {
        return Err("has a character that no address of a repository has");
    }
    let Some((scheme, rest)) = text.split_once("://") else { return scp_url(text) };
    let protocol: Protocol = scheme.parse().map_err(|_| "has a scheme that is not supported")?;
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    if path.trim_matches('/').is_empty() {
        return Err("names no repository");
    }
    if protocol == Protocol::File {
        return if authority.is_empty() { Ok(()) } else { Err("names a host, which file:// can't reach") };
    }
    let (user, host) =
        authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    match user {
        Some(user) if user.contains(':') => return Err("has a password in it; use a credential"),
        Some(_) if protocol != Protocol::Ssh => return Err("has a user in it; use a credential"),
        Some(user) => account(user)?,
        None => {}
    }
    authority_host(host)
}

/// `user@host:path`; git takes what stands before a colon for a host when no slash comes before it.
fn scp_url(text: &str) -> Result<(), &'static str> {
    let (address, path) = text.split_once(':').ok_or("is no address of a repository")?;
    if path.starts_with(':') {
        return Err("names a transport helper");
    }
    if path.starts_with('-') {
        return Err("has a path that begins with a dash");
    }
    if path.trim_matches('/').is_empty() {
        return Err("names no repository");
    }
    let (user, host) = address.split_once('@').ok_or("is no address of a repository")?;
    account(user)?;
    host_name(host)
}

fn account(user: &str) -> Result<(), &'static str> {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | '~');
    match user.starts_with('-') || user.is_empty() || !user.chars().all(known) {
        true => Err("has a user that is no user's name"),
        false => Ok(()),
    }
}

fn authority_host(host: &str) -> Result<(), &'static str> {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((ip, rest)) => {
            ip.parse::<core::net::Ipv6Addr>().map_err(|_| "has a host that is none")?;
            (
                "v6",
                rest.strip_prefix(':').or(rest.is_empty().then_some("1")).ok_or("has a host that is none")?,
            )
        }
        None => host.split_once(':').unwrap_or((host, "1")),
    };
    if port.parse::<u16>().is_ok_and(|port| port > 0) {
        host_name(name)
    } else {
        Err("has a port that is none")
    }
}

fn host_name(host: &str) -> Result<(), &'static str> {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match host.is_empty() || host.starts_with(['-', '.']) || !host.chars().all(known) {
        true => Err("has a host that is none"),
        false => Ok(()),
    }
}

/// The rules of `git check-ref-format`.
fn git_ref(text: &str) -> Result<(), &'static str> {
    plain(text, DEPLOY_REF_BYTES_MAX)?;
    let never = |c: char| c.is_whitespace() || matches!(c, '~' | '^' | ':' | '?' | '*' | '[' | '\\');
    if text.contains(never) || text.contains("..") || text.contains("@{") || text == "@" {
        return Err("has something in it that no name of a branch or tag has");
    }
    let part = |part: &str| part.is_empty() || part.starts_with('.') || part.ends_with(".lock");
    if text.split('/').any(part) || text.ends_with('.') {
        return Err("has a part that no name of a branch or tag has");
    }
    Ok(())
}

fn commit_id(text: &str) -> Result<(), &'static str> {
    let hex = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if matches!(text.len(), 40 | 64) && hex { Ok(()) } else { Err("is not 40 or 64 lower-case hex digits") }
}

fn deploy_path(text: &str) -> Result<(), &'static str> {
    plain(text, DEPLOY_PATH_BYTES_MAX)?;
    let rest = text.strip_prefix('/').ok_or("is not absolute")?;
    if rest.is_empty() {
        return Err("is the root directory");
    }
    parts(rest)
}

fn shared_path(text: &str) -> Result<(), &'static str> {
    plain(text, DEPLOY_PATH_BYTES_MAX)?;
    if text.starts_with('/') {
        return Err("is absolute");
    }
    parts(text)
}

fn parts(path: &str) -> Result<(), &'static str> {
    for part in path.split('/') {
        match part {
            "" => return Err("has an empty part or ends with a slash"),
            "." | ".." => return Err("has a part . or .."),
            ".ssh" => return Err("leads into .ssh"),
            // Also as file systems spell it that know no case.
            _ if part.eq_ignore_ascii_case(".git") => return Err("leads into .git"),
            _ => {}
        }
    }
    Ok(())
}
