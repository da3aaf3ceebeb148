//! The sealed copy of the fleet's keys in the data directory, with which a restored older database can catch up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use signet_common::SigningKey;
use signet_common::envelope::DsseJson;

use super::fleet::FleetKeys;
use super::{LoadError, MasterKey, other, write_private};

/// The copy's file name in the data directory, and what its seal is bound to.
const KEYRING_COPY: &str = "keyring.sealed";

/// What the copy holds.
#[derive(Serialize, Deserialize)]
struct Content {
    chain: Vec<DsseJson>,
    signing_key: String,
    /// The signing keys before, by version.
    #[serde(default)]
    older: BTreeMap<u64, String>,
}

/// Where the copy lies.
#[derive(Debug)]
pub(super) struct Copy(PathBuf);

impl Copy {
    pub(super) fn in_dir(data_dir: &Path) -> Self {
        Self(data_dir.join(KEYRING_COPY))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    fn content(&self, master: &MasterKey) -> Result<Option<Content>, LoadError> {
        let sealed = match std::fs::read(&self.0) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|e| other(format!("{}: {e}", self.0.display())))?,
        };
        let unread = || {
            other(format!(
                "the master key does not open {}, the copy of the fleet's keys (SIGNET_MASTER_KEY_FILE); move it away \
                 if it belongs to another installation",
                self.0.display()
            ))
        };
        let text = master.open(KEYRING_COPY, &sealed).map_err(|_| unread())?;
        serde_json::from_slice(&text).map(Some).map_err(|_| unread())
    }

    /// What lies there, proven.
    pub(super) fn read(&self, master: &MasterKey) -> Result<Option<FleetKeys>, LoadError> {
        let Some(content) = self.content(master)? else { return Ok(None) };
        let newest = content.chain.len() as u64;
        let pems = content.older.into_iter().chain([(newest, content.signing_key)]);
        let keys = pems.map(|(version, pem)| Ok((version, SigningKey::from_pem(&pem).map_err(other)?)));
        FleetKeys::new(content.chain, keys.collect::<Result<_, LoadError>>()?).map(Some)
    }

    /// Leaves these keys there, unless newer ones of the same fleet are.
    pub(super) fn leave(&self, master: &MasterKey, fleet: &FleetKeys) -> Result<(), LoadError> {
        if self.content(master)?.is_some_and(|there| there.chain.starts_with(fleet.chain())) {
            return Ok(());
        }
        let pem = |key: &SigningKey| key.to_pem().map_err(other);
        let older = fleet.older().iter().map(|(version, key)| Ok((*version, pem(key)?)));
        let content = Content {
            chain: fleet.chain().to_vec(),
            signing_key: pem(fleet.signing())?,
            older: older.collect::<Result<_, LoadError>>()?,
        };
        let text = serde_json::to_vec(&content).map_err(other)?;
        write_private(&self.0, &master.seal(KEYRING_COPY, &text).map_err(other)?).map_err(other)
    }
}
