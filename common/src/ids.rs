//! Newtypes for everything that has a name, parsed at the edge and trusted afterwards.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::limits::{GROUP_CHARS_MAX, HOSTNAME_BYTES_MAX};

/// A text that is not the id it claims to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is malformed")]
pub struct BadId {
    /// Which kind of id was expected.
    pub what: &'static str,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                let check: fn(&str) -> Option<String> = $check;
                check(text).map(Self).ok_or(BadId { what: $what })
            }
        }
        impl TryFrom<String> for $name {
            type Error = BadId;
            fn try_from(text: String) -> Result<Self, BadId> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
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
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

fn lower_hex(text: &str, length: usize) -> Option<String> {
    let ok = text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    ok.then(|| text.to_owned())
}

fn hyphenated_uuid(text: &str) -> Option<String> {
    let id = Uuid::try_parse(text).ok()?;
    let canonical = id.to_string();
    (canonical == text).then_some(canonical)
}

text_id!(
    /// SHA-256 of a public key's SPKI, 64 lower-case hex digits.
    KeyId, "key id", |text| lower_hex(text, 64)
);
text_id!(
    /// The first 40 hex digits of the agent's [`KeyId`]: a new key is a new agent.
    AgentId, "agent id", |text| lower_hex(text, 40)
);
text_id!(
    /// The id of one signed message (`jti`), a UUID version 7 in lower case with hyphens.
    Jti, "jti", hyphenated_uuid
);
text_id!(
    /// The id of one journal ("log") of an agent, a UUID.
    LogId, "log id", hyphenated_uuid
);
text_id!(
    /// The id of one start of an agent's program, a UUID.
    StartId, "start id", hyphenated_uuid
);
text_id!(
    /// A task: an opaque string for clients, 1 to 64 characters of `[A-Za-z0-9_-]`.
    TaskId, "task id", |text| {
        let ok = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        ok.then(|| text.to_owned())
    }
);
text_id!(
    /// A host's name after RFC 1123, kept and compared in lower case.
    Hostname, "hostname", |text| {
        let lower = text.to_ascii_lowercase();
        let label = |l: &str| {
            (1..=63).contains(&l.len())
                && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !l.starts_with('-')
                && !l.ends_with('-')
        };
        (lower.len() <= HOSTNAME_BYTES_MAX && lower.split('.').all(label)).then_some(lower)
    }
);

macro_rules! time_ordered {
    ($($name:ident),*) => {$(
        impl $name {
            /// A new id that sorts by its moment of creation.
            #[must_use]
            pub fn generate() -> Self {
                Self(Uuid::now_v7().to_string())
            }

            /// When it was made, whole seconds since 1970; `None` if it is no UUID version 7.
            #[must_use]
            pub fn seconds(&self) -> Option<i64> {
                let id = Uuid::try_parse(&self.0).ok().filter(|id| id.get_version_num() == 7)?;
                i64::try_from(id.get_timestamp()?.to_unix().0).ok()
            }
        }
    )*};
}
time_ordered!(Jti, LogId, StartId, TaskId);

impl KeyId {
    /// The agent that owns this key.
    #[must_use]
    pub fn agent_id(&self) -> AgentId {
        AgentId(self.0.chars().take(40).collect())
    }

    pub(crate) fn of_spki(spki: &[u8]) -> Self {
        Self(hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, spki)))
    }
}

/// Whether a text can be the name of a group of hosts. Blanks around it would be another name on one database and the same
/// on the other.
#[must_use]
pub fn is_group_name(text: &str) -> bool {
    (1..=GROUP_CHARS_MAX).contains(&text.chars().count())
        && text.trim() == text
        && !text.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hostnames_are_lower_case_rfc1123() {
        assert_eq!("Web-1.Example.COM".parse::<Hostname>().unwrap().as_str(), "web-1.example.com");
        for bad in ["", "-a", "a-", "a..b", "a_b", "ä", "a b", ".", &"a".repeat(64), &"a.".repeat(130)] {
            assert!(bad.parse::<Hostname>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn key_ids_are_exact() {
        let good = "0".repeat(64);
        assert!(good.parse::<KeyId>().is_ok());
        assert!("A".repeat(64).parse::<KeyId>().is_err());
        assert_eq!(good.parse::<KeyId>().unwrap().agent_id().as_str(), "0".repeat(40));
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_is_stable(text in ".*") {
            if let Ok(host) = text.parse::<Hostname>() {
                prop_assert_eq!(host.as_str().parse::<Hostname>().unwrap(), host);
            }
            if let Ok(jti) = text.parse::<Jti>() {
                prop_assert_eq!(jti.as_str(), text);
            }
        }
    }
}
