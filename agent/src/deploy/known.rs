//! Which paths were deployed here, for as long as the agent has its directory.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use signet_common::deploy::{CommitId, Deploy, DeployPath, Deployed, Phase};
use signet_common::time::Micros;

use crate::limits::{DEPLOYED_BYTES_MAX, DEPLOYED_PATHS_MAX};

/// The file in the agent's directory.
const FILE: &str = "deployed.json";

/// What was deployed to one path last.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Last {
    /// The commit on which it was left.
    pub(crate) commit: CommitId,
    /// When, in microseconds since 1970.
    pub(crate) at: i64,
    /// How to look at it: the message without what it needed to get there.
    pub(crate) deploy: Deploy,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Known {
    file: PathBuf,
    paths: BTreeMap<DeployPath, Last>,
}

impl Known {
    /// What is noted in the agent's directory. What can't be read is as if nothing was deployed.
    pub(crate) fn read(data_dir: &Path) -> Self {
        let file = data_dir.join(FILE);
        let small = fs::metadata(&file).is_ok_and(|there| there.len() <= DEPLOYED_BYTES_MAX);
        let text = if small { fs::read(&file) } else { Ok(b"{}".to_vec()) };
        let paths = text.and_then(|text| Ok(serde_json::from_slice(&text)?)).unwrap_or_else(|error: io::Error| {
            tracing::warn!(file = %file.display(), %error, "what was deployed here is not known any more");
            BTreeMap::new()
        });
        Self { file, paths }
    }

    /// Notes where a deployment left its path.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn note(&mut self, deploy: &Deploy, deployed: &Deployed) -> io::Result<()> {
        let (Phase::Deploy, Some(commit)) = (deploy.phase, &deployed.commit) else { return Ok(()) };
        let deploy = Deploy {
            credential: None,
            approval: None,
            allowed_signers: None,
            aud: Vec::new(),
            ..deploy.clone()
        };
        let last = Last { commit: commit.clone(), at: Micros::now().0, deploy };
        self.paths.insert(last.deploy.path.clone(), last);
        while self.paths.len() > DEPLOYED_PATHS_MAX {
            let oldest = self.paths.iter().min_by_key(|(_, last)| last.at).map(|(path, _)| path.clone());
            oldest.and_then(|path| self.paths.remove(&path));
        }
        let next = self.file.with_extension("next");
        fs::write(&next, serde_json::to_vec(&self.paths)?)?;
        fs::rename(&next, &self.file)
    }

    /// The newest first.
    pub(crate) fn newest(&self) -> Vec<Last> {
        let mut all: Vec<Last> = self.paths.values().cloned().collect();
        all.sort_by_key(|last| std::cmp::Reverse(last.at));
        all
    }
}
