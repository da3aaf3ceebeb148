//! What is fetched, and from where.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use signet_common::deploy::{CommitId, Deploy, GitRef};

use super::git::{Git, Repository};
use super::place::STATE;
use super::plan::Fault;

/// From where what is there came last.
const REMOTE: &str = "remote";
const EVERY_BRANCH: &str = "+refs/heads/*:refs/remotes/origin/*";
const EVERY_TAG: &str = "+refs/tags/*:refs/tags/*";
/// So begins what fetches tags.
const TAGS: &str = "+refs/tags/";
/// The lines by which git says in a bare repository's configuration what kind it is.
const KIND: [&str; 13] = [
    "[core]",
    "repositoryformatversion = 0",
    "repositoryformatversion = 1",
    "filemode = true",
    "filemode = false",
    "ignorecase = true",
    "symlinks = false",
    "bare = true",
    "[extensions]",
    "objectformat = sha1",
    "objectformat = sha256",
    "refstorage = files",
    "refstorage = reftable",
];
/// Said by git, and no reason to give up yet: no such branch or tag, and what a server that knows ids only of branches says
/// of others.
const NOT_THERE: [&str; 2] = ["couldn't find remote ref", "not our ref"];

/// To which commit the deployment's reference leads on the remote.
///
/// # Errors
/// It can't be reached, or has no such branch or tag.
pub(super) fn resolve(git: &Git, deploy: &Deploy) -> Result<CommitId, Fault> {
    if let Some(commit) = deploy.reference.as_ref().and_then(as_commit) {
        return Ok(commit);
    }
    let names = match deploy.reference.as_ref().map(GitRef::as_str) {
        None => vec!["HEAD".to_owned()],
        Some(whole) if whole.starts_with("refs/") => vec![format!("{whole}^{{}}"), whole.to_owned()],
        Some(name) => {
            vec![format!("refs/heads/{name}"), format!("refs/tags/{name}^{{}}"), format!("refs/tags/{name}")]
        }
    };
    let mut arguments = vec!["ls-remote", "--quiet", "--", deploy.repository.as_str()];
    arguments.extend(names.iter().map(String::as_str));
    let found = git.run(None, &arguments)?;
    // git matches the ends of names; only whole ones count.
    let commit_of = |name: &String| {
        let line = found.lines().find_map(|line| line.split_once('\t').filter(|(_, found)| found == name));
        line.and_then(|(commit, _)| commit.parse::<CommitId>().ok())
    };
    names.iter().find_map(commit_of).ok_or_else(|| match &deploy.reference {
        Some(reference) => {
            let hint = GitRef::hint(reference.as_str());
            Fault::new(format!("the repository has no branch or tag {reference}{hint}"))
        }
        None => Fault::new("the repository has no default branch"),
    })
}

fn as_commit(reference: &GitRef) -> Option<CommitId> {
    reference.as_str().parse().ok()
}

/// Makes a repository, also one of which only a part is there.
///
/// # Errors
/// git's.
pub(super) fn init(git: &Git, at: &Repository, deploy: &Deploy, commit: &CommitId) -> Result<(), Fault> {
    let directory = at.tree.as_deref().unwrap_or(&at.directory);
    let directory = directory.to_str().ok_or_else(|| Fault::new("the path is no text"))?;
    // No template: those bring hooks along.
    let mut arguments = vec!["init", "--quiet", "--template=", "--initial-branch=main"];
    if at.tree.is_none() {
        arguments.push("--bare");
    }
    if commit.as_str().len() > 40 {
        arguments.push("--object-format=sha256");
    }
    arguments.extend(["--", directory]);
    git.run(None, &arguments)?;
    name_remote(&at.directory, deploy)
}

/// Has a mirror's configuration say nothing but what kind of repository it is, and what its remote is.
///
/// # Errors
/// The system's.
pub(super) fn plain(at: &Repository, deploy: &Deploy) -> Result<(), Fault> {
    let config = at.directory.join("config");
    let plain = || -> io::Result<()> {
        let found = fs::read_to_string(&config)?;
        let kept = found
            .lines()
            .map(str::trim)
            .filter(|line| KIND.iter().any(|kind| kind.eq_ignore_ascii_case(line)));
        let mut text: String = kept.flat_map(|line| [line, "\n"]).collect();
        text += &origin(deploy);
        if text == found {
            return Ok(());
        }
        let next = at.directory.join(STATE).join("config.next");
        fs::write(&next, text)?;
        fs::rename(&next, &config)
    };
    plain().map_err(Fault::of(config.display()))
}

/// An address has neither quotes nor backslashes in it.
fn origin(deploy: &Deploy) -> String {
    format!(
        "[remote \"origin\"]\n\turl = \"{}\"\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n",
        deploy.repository
    )
}

/// Adds the remote for people who look at the repository; none of this module's own steps needs it.
fn name_remote(repository: &Path, deploy: &Deploy) -> Result<(), Fault> {
    let config = repository.join("config");
    let text = fs::read_to_string(&config).map_err(Fault::of(config.display()))?;
    if text.contains("[remote \"origin\"]") {
        return Ok(());
    }
    let append = || fs::OpenOptions::new().append(true).open(&config)?.write_all(origin(deploy).as_bytes());
    append().map_err(Fault::of(config.display()))
}

/// Refuses the clone of another repository, unless it is asked to become one of this.
///
/// # Errors
/// It is one, or git's.
pub(super) fn same_remote(git: &Git, at: &Repository, deploy: &Deploy) -> Result<(), Fault> {
    match other_remote(git, at, deploy)? {
        None => Ok(()),
        Some(_) if deploy.force => take_remote(git, at, deploy),
        Some(refused) => Err(refused),
    }
}

/// Fetches the commit where it is missing, and says whether it is there now. What was asked for with `force` has still to
/// be approved: the clone of another repository stays what it is, and does not have the commit.
///
/// # Errors
/// It is such a clone, and nothing is forced; or git's.
pub(super) fn prepare(git: &Git, at: &Repository, deploy: &Deploy, commit: &CommitId) -> Result<bool, Fault> {
    match other_remote(git, at, deploy)? {
        None => {}
        Some(_) if deploy.force => return Ok(false),
        Some(refused) => return Err(refused),
    }
    if at.tree.is_none() {
        plain(at, deploy)?;
    }
    if !has(git, at, commit)? {
        fetch(git, at, deploy, commit)?;
    }
    Ok(true)
}

/// What is said of the clone of another repository.
fn other_remote(git: &Git, at: &Repository, deploy: &Deploy) -> Result<Option<Fault>, Fault> {
    let wanted = deploy.repository.as_str();
    if fs::read_to_string(remote(at)).is_ok_and(|remote| remote == wanted) {
        return Ok(None);
    }
    let found = git.ask(at, &["config", "--get", "remote.origin.url"])?.unwrap_or_default();
    match found.trim() {
        same if same == wanted => note_remote(at, deploy).map(|()| None),
        other => Ok(Some(Fault::new(format!(
            "{} is a clone of {}",
            at.tree.as_deref().unwrap_or(&at.directory).display(),
            without_password(other)
        )))),
    }
}

/// Has the repository be a clone of this one.
///
/// # Errors
/// git's, or the system's.
pub(super) fn take_remote(git: &Git, at: &Repository, deploy: &Deploy) -> Result<(), Fault> {
    git.run(Some(at), &["config", "remote.origin.url", deploy.repository.as_str()])?;
    note_remote(at, deploy)
}

/// Notes of what it is a clone, so that git need not be asked.
///
/// # Errors
/// The system's.
pub(super) fn note_remote(at: &Repository, deploy: &Deploy) -> Result<(), Fault> {
    let file = remote(at);
    fs::write(&file, deploy.repository.as_str()).map_err(Fault::of(file.display()))
}

fn remote(at: &Repository) -> PathBuf {
    at.directory.join(STATE).join(REMOTE)
}

fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://***@{rest}"),
        _ if url.is_empty() => "nothing".to_owned(),
        _ => url.to_owned(),
    }
}

/// Demands that the commit is signed by one of the allowed signers, or a tag that leads to it.
///
/// # Errors
/// It is not, or git's.
pub(super) fn verify(git: &Git, at: &Repository, deploy: &Deploy, commit: &CommitId) -> Result<(), Fault> {
    let Some(signers) = &deploy.allowed_signers else { return Ok(()) };
    let reference = deploy.reference.as_ref();
    let refused = match git.verify(at, commit, reference, signers) {
        Ok(()) => return Ok(()),
        Err(fault) => fault,
    };
    // The commit may have come before its tag did, or before that was signed.
    let tags: Vec<String> = named(reference).into_iter().filter(|spec| spec.starts_with(TAGS)).collect();
    match tags.is_empty() || !fetched(git, at, deploy, &tags).unwrap_or(false) {
        true => Err(refused),
        false => git.verify(at, commit, reference, signers),
    }
}

/// Whether the commit is there, with all that it consists of.
///
/// # Errors
/// git can't be executed.
pub(super) fn has(git: &Git, at: &Repository, commit: &CommitId) -> Result<bool, Fault> {
    // The id of a tag leads to a commit and is none.
    let found = git.ask(at, &["rev-parse", "--verify", "--quiet", &format!("{commit}^{{commit}}")])?;
    if found.is_none_or(|found| found.trim() != commit.as_str()) {
        return Ok(false);
    }
    // A fetch that was killed may leave it without its files. What a branch or tag leads to came as a whole: only the
    // rest is looked at.
    Ok(git.ask(at, &["rev-list", "--quiet", "--objects", commit.as_str(), "--not", "--all"])?.is_some())
}

/// Fetches the commit: by its branch or tag, else with all of them, else by its id alone.
///
/// # Errors
/// git's, or the remote doesn't have it.
pub(super) fn fetch(git: &Git, at: &Repository, deploy: &Deploy, commit: &CommitId) -> Result<(), Fault> {
    let mut tries = named(deploy.reference.as_ref());
    tries.extend([EVERY_BRANCH, EVERY_TAG].map(str::to_owned));
    for refspec in tries {
        if fetched(git, at, deploy, &[refspec])? && has(git, at, commit)? {
            return Ok(());
        }
    }
    // Not every server gives what no branch leads to.
    let by_id = format!("+{commit}:refs/signet/{commit}");
    if fetched(git, at, deploy, &[by_id]).is_ok_and(|found| found) && has(git, at, commit)? {
        return Ok(());
    }
    Err(Fault::new(format!("the repository has no commit {commit}")))
}

/// Where the reference may stand on the remote, and where here.
fn named(reference: Option<&GitRef>) -> Vec<String> {
    let Some(reference) = reference else { return vec!["+HEAD:refs/signet/head".to_owned()] };
    let name = reference.as_str();
    if let Some(commit) = as_commit(reference) {
        return vec![format!("+{commit}:refs/signet/{commit}")];
    }
    if let Some(branch) = name.strip_prefix("refs/heads/") {
        return vec![format!("+{name}:refs/remotes/origin/{branch}")];
    }
    if name.starts_with("refs/tags/") {
        return vec![format!("+{name}:{name}")];
    }
    if name.starts_with("refs/") {
        return vec![format!("+{name}:refs/signet/head")];
    }
    vec![
        format!("+refs/heads/{name}:refs/remotes/origin/{name}"),
        format!("+refs/tags/{name}:refs/tags/{name}"),
    ]
}

/// False when the remote has none of these.
fn fetched(git: &Git, at: &Repository, deploy: &Deploy, refspecs: &[String]) -> Result<bool, Fault> {
    let mut arguments = vec!["fetch", "--quiet", "--no-tags", "--no-write-fetch-head"];
    if !at.directory.join("packed-refs").exists() && !at.directory.join("refs/remotes").exists() {
        // Nothing to tidy up yet.
        arguments.push("--no-auto-maintenance");
    }
    // Branches that are gone stand in the way of others. Tags of a working tree may be somebody's own.
    if refspecs.iter().all(|spec| spec == EVERY_BRANCH || at.tree.is_none() && spec == EVERY_TAG) {
        arguments.push("--prune");
    }
    if deploy.submodules {
        arguments.extend(["--recurse-submodules=no"]);
    }
    arguments.extend(["--", deploy.repository.as_str()]);
    arguments.extend(refspecs.iter().map(String::as_str));
    match git.attempt(at, &arguments, &NOT_THERE) {
        Ok(_) => Ok(true),
        Err(fault) if NOT_THERE.iter().any(|not| fault.to_string().contains(not)) => Ok(false),
        // Where a branch is gone in whose place there is a directory of branches now, or the other way round.
        Err(fault) if fault.to_string().contains("local refs could not be updated") => Ok(false),
        Err(fault) => Err(fault),
    }
}

/// Checks out submodules, over the same protocols.
///
/// # Errors
/// git's.
pub(super) fn submodules(git: &Git, at: &Repository, deploy: &Deploy) -> Result<(), Fault> {
    let listed = at.tree.as_ref().is_some_and(|tree| tree.join(".gitmodules").is_file());
    if deploy.submodules && listed {
        git.run(Some(at), &["submodule", "--quiet", "update", "--init", "--recursive", "--force"])?;
    }
    Ok(())
}
