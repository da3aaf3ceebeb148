//! The repository that is deployed: always the same one.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use crate::limits::{
    DEPLOY_COMMIT_FILES, DEPLOY_COMMITS, DEPLOY_DIRECTORY_FILES, DEPLOY_FILE_BYTES, DEPLOY_FILES,
};
use crate::process::command;

/// Its one branch.
pub(super) const BRANCH: &str = "main";
const DATE: &str = "2026-01-01T00:00:00Z";
const _: () =
    assert!(DEPLOY_COMMITS * DEPLOY_COMMIT_FILES <= DEPLOY_FILES, "each commit changes other files");
/// What is not text compresses no better than most of what lies in repositories.
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 \n";

/// Makes it in this directory, packed as after a push.
pub(super) fn make(directory: &Path) -> anyhow::Result<()> {
    fs::create_dir(directory)?;
    git(directory, &["init", "--quiet", "--initial-branch", BRANCH])?;
    let mut letters = Letters(0x9e37_79b9_7f4a_7c15);
    commit(directory, &mut letters, 0..DEPLOY_FILES)?;
    for number in 0..DEPLOY_COMMITS {
        let first = number * DEPLOY_COMMIT_FILES;
        commit(directory, &mut letters, first..first + DEPLOY_COMMIT_FILES)?;
    }
    git(directory, &["gc", "--quiet"])
}

fn commit(directory: &Path, letters: &mut Letters, files: std::ops::Range<usize>) -> anyhow::Result<()> {
    for number in files {
        let file = file(directory, number);
        fs::create_dir_all(file.parent().context("a directory")?)?;
        fs::write(file, letters.take())?;
    }
    git(directory, &["add", "--all"])?;
    git(directory, &["commit", "--quiet", "--message", "a change"])
}

fn file(directory: &Path, number: usize) -> PathBuf {
    directory.join(format!("part-{:03}/file-{number:05}.txt", number / DEPLOY_DIRECTORY_FILES))
}

fn git(directory: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let mut git = command("git");
    git.current_dir(directory)
        .args(["-c", "user.name=bench", "-c", "user.email=bench@example.com", "-c", "commit.gpgSign=false"])
        .args(arguments)
        .envs([("GIT_AUTHOR_DATE", DATE), ("GIT_COMMITTER_DATE", DATE)]);
    let output = git.output().context("git")?;
    ensure!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The same letters each time: xorshift.
struct Letters(u64);

impl Letters {
    fn take(&mut self) -> Vec<u8> {
        let letter = |_| {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            LETTERS[usize::from((self.0 >> 32) as u8 & 63)]
        };
        (0..DEPLOY_FILE_BYTES).map(letter).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_content_is_always_the_same() {
        let [mut one, mut other] = [Letters(1), Letters(1)];
        let first = one.take();
        assert_eq!(first, other.take());
        assert!(first.len() == DEPLOY_FILE_BYTES && one.take() != first);
    }
}
