//! Entries as they are stored and shown.

use serde::{Deserialize, Serialize};
use signet_common::deploy::CredentialKind;
use signet_common::time::Micros;
use utoipa::ToSchema;

/// What may be shown of a credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(super) struct About {
    /// `deploy_key` or `https_token`
    #[schema(value_type = String)]
    pub(super) kind: CredentialKind,
    /// The user that goes with a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) username: Option<String>,
    /// Of a deploy key's public half, as `ssh-keygen -l` prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) fingerprint: Option<String>,
    /// The hosts that a deploy key goes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) known_hosts: Option<String>,
}

/// An entry without its secret.
#[derive(Debug, Clone)]
pub(super) struct Repository {
    pub(super) id: String,
    /// As it was given; with a final slash it is for all repositories below.
    pub(super) url: String,
    pub(super) about: Option<About>,
    pub(super) allowed_signers: Option<String>,
    pub(super) created_at: Micros,
    pub(super) updated_at: Micros,
}

/// A value that a change sets, takes away, or leaves.
#[derive(Debug, Clone)]
pub(super) enum Change<T> {
    /// As it is.
    Keep,
    /// None, or this.
    Set(Option<T>),
}
