//! What deployments are told.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Whether a host's key must be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum HostKeyPolicy {
    /// The first key that a host and port shows is kept; later it must be the same.
    Pin,
    /// Only hosts whose key was kept before.
    Strict,
    /// Any key; for machines that are made anew each time.
    Off,
}

impl HostKeyPolicy {
    /// From a request or a setting.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "pin" => Some(Self::Pin),
            "strict" => Some(Self::Strict),
            "off" => Some(Self::Off),
            _ => None,
        }
    }
}

/// What deployments are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deploying {
    /// The program; one without a slash is looked for on PATH.
    pub ansible_playbook: PathBuf,
    /// Transports that a repository's address may name.
    pub git_protocols: BTreeSet<String>,
    /// What holds for a job that does not say.
    pub host_keys: HostKeyPolicy,
}

impl Default for Deploying {
    fn default() -> Self {
        Self {
            ansible_playbook: "ansible-playbook".into(),
            git_protocols: ["https", "ssh"].map(str::to_owned).into(),
            host_keys: HostKeyPolicy::Pin,
        }
    }
}

/// Transports that may be allowed.
pub const GIT_PROTOCOLS: [&str; 5] = ["https", "ssh", "http", "git", "file"];
