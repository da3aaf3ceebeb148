//! What deployments are told.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::sources::Raw;
use super::values::{SettingError, list, wrong};

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

impl Deploying {
    pub(super) fn parse(raw: &Raw) -> Result<Self, SettingError> {
        let mut settings = Self::default();
        if let Some(path) = &raw.ansible_playbook {
            settings.ansible_playbook = path.into();
        }
        if let Some(text) = &raw.git_protocols {
            settings.git_protocols = list(text, transport)?.into_iter().collect();
        }
        if let Some(text) = &raw.ssh_host_keys {
            settings.host_keys = HostKeyPolicy::parse(text)
                .ok_or_else(|| wrong("SIGNET_SSH_HOST_KEYS", "must be pin, strict or off"))?;
        }
        Ok(settings)
    }
}

fn transport(name: &str) -> Result<String, SettingError> {
    match GIT_PROTOCOLS.contains(&name) {
        true => Ok(name.to_owned()),
        false => {
            let known = GIT_PROTOCOLS.join(", ");
            Err(wrong("SIGNET_GIT_PROTOCOLS", format!("'{name}' is none of {known}")))
        }
    }
}

/// Transports that may be allowed.
pub const GIT_PROTOCOLS: [&str; 5] = ["https", "ssh", "http", "git", "file"];
