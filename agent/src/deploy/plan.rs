//! What agent and driver say to each other, and how a driver fails.

use std::fmt;

use serde::{Deserialize, Serialize};
use signet_common::deploy::{Deploy, Deployed};

use crate::limits::DEPLOY_NAMES_SHOWN;
use crate::policy::DeployRoots;

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Secret(String);

impl Secret {
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }

    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What the driver is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    /// The message, without its approval.
    pub(super) deploy: Deploy,
    /// The credential's secret.
    pub(super) secret: Option<Secret>,
    /// Below what deployments may go.
    pub(super) roots: DeployRoots,
    /// This host runs not just any program, so none that a user's git configuration names.
    #[serde(default)]
    pub(super) narrowed: bool,
    /// Only look how the path stands: the report's `changed` says whether files were changed by hand.
    #[serde(default)]
    pub(super) look: bool,
}

/// What it did.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Report {
    /// Where things stand.
    pub(super) deploy: Deployed,
    /// Why it failed.
    pub(super) fault: Option<String>,
}

/// Why a deployment goes no further: one sentence for a person, without control characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Fault(String);

impl Fault {
    /// What a program or a file said may be in it.
    pub(super) fn new(sentence: impl AsRef<str>) -> Self {
        let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
        Self(sentence.as_ref().chars().map(shown).collect())
    }

    /// For `map_err` of what the system says about a file.
    pub(super) fn of<E: fmt::Display>(what: impl fmt::Display) -> impl FnOnce(E) -> Self {
        move |error| Self::new(format!("{what}: {error}"))
    }
}

/// Some names, and how many more.
pub(super) fn shown<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(DEPLOY_NAMES_SHOWN);
    let first: Vec<&str> = names.take(DEPLOY_NAMES_SHOWN).collect();
    match more {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_names_are_counted() {
        let names: Vec<String> = (0..DEPLOY_NAMES_SHOWN + 2).map(|n| n.to_string()).collect();
        assert!(shown(names.iter().map(String::as_str)).ends_with(" and 2 more"));
    }
}
