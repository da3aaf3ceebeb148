//! What a job says of its repository: what opens it, who must have signed it, and what of it may run.

use serde_json::{Map, Value};
use signet_common::deploy::GitUrl;

use super::{Problems, flag, text};
use crate::repositories::{Credential, read_credential, read_signers};

/// What only agents understand.
#[derive(Debug)]
pub(super) struct Trust {
    pub(super) credential: Option<Credential>,
    pub(super) allowed_signers: Option<String>,
    pub(super) submodules: bool,
    pub(super) filters: bool,
}

/// Their names.
pub(super) const FIELDS: [&str; 4] = ["credential", "allowed_signers", "submodules", "filters"];

/// Reads these fields.
pub(super) fn read(object: &Map<String, Value>, repository: Option<&str>, problems: &mut Problems) -> Trust {
    let url: Option<GitUrl> = repository.and_then(|url| url.parse().ok());
    let credential = object.get("credential").filter(|value| !value.is_null()).and_then(|value| {
        let read = read_credential(value, "credential", url.as_ref());
        read.map_err(|wrong| wrong.into_iter().for_each(|(field, why)| problems.add(field, why))).ok()
    });
    // An empty list is no list by mistake, which would be a demand less.
    let signers = match object.get("allowed_signers") {
        Some(Value::String(text)) => read_signers(text).map(Some),
        _ => text(object, "allowed_signers").map(|_| None),
    };
    Trust {
        credential,
        allowed_signers: problems.take("allowed_signers".into(), signers),
        submodules: problems.take("submodules".into(), flag(object, "submodules")).unwrap_or(false),
        filters: problems.take("filters".into(), flag(object, "filters")).unwrap_or(false),
    }
}
