//! Who there is, and what each may do: pure types.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::limits::{EMAIL_BYTES_MAX, USERNAME_BYTES_MAX};

/// What an account may do. Later variants may do less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
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

impl Role {
    /// Every role, from the one that may most.
    pub const ALL: [Self; 4] = [Self::Admin, Self::Operator, Self::Viewer, Self::User];

    /// As on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Viewer => "viewer",
            Self::User => "user",
        }
    }

    /// From the wire or the database.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }

    /// The one of both that may less: a token never lends more than its owner has.
    #[must_use]
    pub fn at_most(self, other: Self) -> Self {
        self.max(other)
    }
}

/// A name to log in with: 1 to 150 of `A-Z a-z 0-9 @ . + - _`, kept in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Username(String);

impl Username {
    /// In lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Username {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let good = (1..=USERNAME_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"@.+-_".contains(&b));
        if good {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err("must have 1 to 150 letters, digits or @ . + - _")
        }
    }
}

/// An address for mail: something on both sides of one `@`, no blanks. Whether mail arrives there is not asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Email(String);

impl Email {
    /// As it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Not an address for mail; each surface has its own words for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoEmail;

impl FromStr for Email {
    type Err = NoEmail;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain =
            text.len() <= EMAIL_BYTES_MAX && !text.contains(|c: char| c.is_whitespace() || c.is_control());
        match text.split_once('@') {
            Some((name, domain))
                if plain
                    && !name.is_empty()
                    && domain.contains('.')
                    && !domain.contains('@')
                    && !domain.starts_with('.')
                    && !domain.ends_with('.') =>
            {
                Ok(Self(text.to_ascii_lowercase()))
            }
            _ => Err(NoEmail),
        }
    }
}

/// An account as it is stored. Both documents' fields are views of it.
#[derive(Debug, Clone)]
pub struct User {
    /// Document 001's id.
    pub id: i64,
    /// Document 003's id.
    pub uuid: Uuid,
    /// In lower case.
    pub username: String,
    /// Empty when there is none.
    pub email: String,
    /// May be empty.
    pub first_name: String,
    /// May be empty.
    pub last_name: String,
    /// What it may do.
    pub role: Role,
    /// Whether it may do anything.
    pub is_active: bool,
    /// The groups of hosts that it may make do something; none = all.
    pub host_groups: Option<BTreeSet<String>>,
    /// When it was made.
    pub created_at: signet_common::time::Micros,
    /// When it was last changed.
    pub updated_at: signet_common::time::Micros,
    /// When somebody last logged in.
    pub last_login_at: Option<signet_common::time::Micros>,
}

/// What an API token is good for, besides its role. What is absent does not limit it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// Surfaces: `fleet`, `jobs`, `pipelines`, `releases`, `clusters`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub surfaces: Option<BTreeSet<String>>,
    /// Groups of hosts that it may make do something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<BTreeSet<String>>,
    /// Repositories that it may deploy; with these it may do nothing else but read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repositories: Option<BTreeSet<String>>,
    /// Of these: whether its deployments may bring commands, filters and the account that they run as.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hooks: bool,
    /// Of these: the directories to which, or below which, it may deploy them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<BTreeSet<String>>,
    /// Networks from which it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub networks: Option<Vec<IpNet>>,
}

impl Scope {
    /// Whether a request from there to that surface is covered.
    #[must_use]
    pub fn covers(&self, surface: &str, peer: IpAddr) -> bool {
        self.surfaces.as_ref().is_none_or(|all| all.contains(surface))
            && self.networks.as_ref().is_none_or(|all| all.iter().any(|net| net.contains(&peer)))
    }
}

/// What a token that is limited to repositories may deploy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deploys {
    /// These repositories.
    pub repositories: BTreeSet<String>,
    /// Whether with commands, filters, and as another account.
    pub hooks: bool,
    /// To these directories and below; none = anywhere.
    pub paths: Option<BTreeSet<String>>,
}

impl Deploys {
    /// Of a token's scope; none = it is not limited to repositories.
    #[must_use]
    pub fn of(scope: &Scope) -> Option<Self> {
        let repositories = scope.repositories.clone()?;
        Some(Self { repositories, hooks: scope.hooks, paths: scope.paths.clone() })
    }
}

/// How a caller showed who it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Via {
    /// The installation's own admin token.
    AdminToken,
    /// A log-in: a bearer token, or the console's cookie.
    Session(Uuid),
    /// A token for programs, by its id.
    ApiToken(Uuid),
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AdminToken => f.write_str("admin token"),
            Self::Session(_) => f.write_str("session"),
            Self::ApiToken(id) => write!(f, "token {id}"),
        }
    }
}

/// The account behind a request. As an argument of a handler it can only be there when the credential was right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The account's name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Which account; none with the installation's own admin token.
    pub user: Option<(i64, Uuid)>,
    /// How it showed that.
    pub via: Via,
    /// The groups of hosts that it may make do something; none = all.
    pub groups: Option<BTreeSet<String>>,
    /// What alone it may do, when it is limited to repositories.
    pub deploys: Option<Deploys>,
}

impl Caller {
    /// The holder of the installation's own admin token.
    #[must_use]
    pub fn admin_token() -> Self {
        let (name, role) = ("admin".into(), Role::Admin);
        Self { name, role, user: None, via: Via::AdminToken, groups: None, deploys: None }
    }

    /// Whether it is limited to some hosts or repositories: it changes nothing that all depend on.
    #[must_use]
    pub const fn is_limited(&self) -> bool {
        self.groups.is_some() || self.deploys.is_some()
    }

    /// Whether this is that account.
    #[must_use]
    pub fn is(&self, user: &User) -> bool {
        self.user.is_some_and(|(id, _)| id == user.id)
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Refuses who may not make hosts of one of these groups do something; no `allowed` = may with all.
///
/// # Errors
/// [`Error::Forbidden`], naming the group.
pub fn within<'a>(
    allowed: Option<&BTreeSet<String>>,
    groups: impl IntoIterator<Item = &'a String>,
) -> Result<()> {
    let Some(allowed) = allowed else { return Ok(()) };
    match groups.into_iter().find(|group| !allowed.contains(*group)) {
        Some(group) => {
            Err(Error::Forbidden(format!("this account may not do anything on hosts of the group {group}")))
        }
        None => Ok(()),
    }
}

/// The groups that both allow.
#[must_use]
pub fn both(one: Option<BTreeSet<String>>, other: Option<BTreeSet<String>>) -> Option<BTreeSet<String>> {
    match (one, other) {
        (Some(a), Some(b)) => Some(a.intersection(&b).cloned().collect()),
        (only, None) | (None, only) => only,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses() {
        assert_eq!("Admin".parse::<Username>().unwrap().as_str(), "admin");
        for bad in ["", "a b", "a/b", "日本", &"a".repeat(151), "a\0"] {
            assert!(bad.parse::<Username>().is_err(), "{bad}");
        }
        assert!("A@example.com".parse::<Email>().is_ok());
        for bad in ["", "a", "a@b", "@b.c", "a@.c", "a@b.", "a@b@c.d", "a b@c.d", "a@c.d\n"] {
            assert!(bad.parse::<Email>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_token_lends_no_more_than_its_owner_has() {
        assert_eq!(Role::Admin.at_most(Role::Viewer), Role::Viewer);
        assert_eq!(Role::User.at_most(Role::Admin), Role::User);
        let set = |names: &[&str]| Some(names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>());
        assert_eq!(both(set(&["a", "b"]), set(&["b", "c"])), set(&["b"]));
        assert_eq!(both(None, set(&["b"])), set(&["b"]));
        assert_eq!(both(None, None), None);
    }

    #[test]
    fn a_scope_covers_what_it_names() {
        let scope = Scope {
            surfaces: Some(["jobs".to_owned()].into()),
            networks: Some(vec!["10.0.0.0/8".parse().unwrap()]),
            ..Scope::default()
        };
        assert!(scope.covers("jobs", "10.1.2.3".parse().unwrap()));
        assert!(!scope.covers("fleet", "10.1.2.3".parse().unwrap()));
        assert!(!scope.covers("jobs", "192.0.2.1".parse().unwrap()));
        assert!(Scope::default().covers("fleet", "::1".parse().unwrap()));
    }
}
