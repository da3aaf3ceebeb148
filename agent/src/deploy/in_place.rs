//! The path is the working tree.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;

use signet_common::deploy::CommitId;
use signet_common::fault::{self, DeployPoint};

use super::git::Repository;
use super::job::Job;
use super::place::{self, BUSY, GIT, Locked, STATE};
use super::plan::{Fault, shown};
use super::say::say;
use super::store;

/// What is found at the path.
#[derive(Debug, Default)]
struct Found {
    /// On which commit it stands.
    head: Option<CommitId>,
    /// Files that differ from it.
    changed: Vec<String>,
    /// An earlier deployment did not come to its end.
    interrupted: bool,
    /// It may have changed the files of this commit.
    begun: Option<CommitId>,
}

/// Brings the commit to the path.
///
/// # Errors
/// What is there is foreign or was changed by hand, or a step fails.
pub(super) fn deploy(job: &mut Job) -> Result<(), Fault> {
    let at = repository(&job.path);
    let state = at.directory.join(STATE);
    job.make_place()?;
    vet(job, &at)?;
    let first = at.directory.symlink_metadata().is_err();
    let _locked = Locked::take(&job.path, &state, &job.deploy, &job.git)?;
    fault::hit(DeployPoint::Locked);
    let done = locked(job, &at, &state);
    if done.is_err() && first && !job.git.killed().load(Ordering::Relaxed) && untouched(&state) {
        // Else what never came to anything would be in the way of what is tried next, here or below.
        fs::remove_dir_all(&at.directory).map_err(Fault::of(at.directory.display()))?;
    }
    done
}

/// Whether a first deployment ended before any file may have changed.
fn untouched(state: &Path) -> bool {
    fs::read_to_string(state.join(BUSY)).is_ok_and(|commit| commit.is_empty())
}

fn locked(job: &mut Job, at: &Repository, state: &Path) -> Result<(), Fault> {
    let commit = job.commit()?;
    // Also to look for changes: that cleans files.
    job.git.disable_filters(at)?;
    let found = look(job, at, &commit)?;
    {
        let mut told = job.told();
        (told.deployed.before, told.deployed.commit) = (found.head.clone(), found.head.clone());
    }
    if found.head.as_ref() == Some(&commit) && found.changed.is_empty() && !found.interrupted {
        store::verify(&job.git, at, &job.deploy, &commit)?;
        say(&format!("{} stands on {commit} already", job.path.display()));
        return Ok(());
    }
    if found.head.is_none() || !store::has(&job.git, at, &commit)? {
        say(&format!("fetching {commit} from {}", job.deploy.repository));
        store::fetch(&job.git, at, &job.deploy, &commit)?;
    }
    fault::hit(DeployPoint::Fetched);
    store::verify(&job.git, at, &job.deploy, &commit)?;
    let busy = state.join(BUSY);
    let before = found.begun.as_ref().or(found.head.as_ref()).unwrap_or(&commit);
    if found.begun.is_none() {
        fs::write(&busy, before.as_str()).map_err(Fault::of(busy.display()))?;
    }
    say(&format!("checking out {commit}"));
    if let Err(fault) = check_out(job, at, &commit, &found) {
        // git changes nothing when it refuses, and may have changed anything when it fails, or when it is killed before it
        // notes what it wrote.
        let now = status(job, at)?;
        if job.git.killed().load(Ordering::Relaxed) || now.head != found.head || now.changed != found.changed
        {
            job.told().deployed.changed = true;
        } else if found.begun.is_none() {
            let stays = if found.interrupted { fs::write(&busy, "") } else { fs::remove_file(&busy) };
            stays.map_err(Fault::of(busy.display()))?;
        }
        return Err(fault);
    }
    fault::hit(DeployPoint::CheckedOut);
    store::submodules(&job.git, at, &job.deploy)?;
    complete(job, at, before, &commit)?;
    store::note_remote(at, &job.deploy)?;
    fs::remove_file(&busy).map_err(Fault::of(busy.display()))?;
    let mut told = job.told();
    (told.deployed.commit, told.deployed.changed) = (Some(commit), true);
    Ok(())
}

fn check_out(job: &Job, at: &Repository, commit: &CommitId, found: &Found) -> Result<(), Fault> {
    let mut arguments = vec!["checkout", "--quiet", "--detach"];
    if !job.deploy.force {
        // What is ignored is the application's own as well.
        arguments.push("--no-overwrite-ignore");
    }
    if job.deploy.force || found.begun.is_some() {
        arguments.push("--force");
    }
    arguments.extend([commit.as_str(), "--"]);
    job.git.run(Some(at), &arguments).map(drop)
}

/// Refuses a tree that is not what the commit says: git is content when it could not write or replace a file.
fn complete(job: &Job, at: &Repository, before: &CommitId, commit: &CommitId) -> Result<(), Fault> {
    let left = if store::has(&job.git, at, before)? { left(job, at, before, commit)? } else { Vec::new() };
    let mut stands = status(job, at)?;
    stands.changed.extend(left);
    if stands.head.as_ref() == Some(commit) && stands.changed.is_empty() {
        return Ok(());
    }
    job.told().deployed.changed = true;
    Err(Fault::new(format!(
        "{} is not what {commit} says: {}",
        job.path.display(),
        shown(stands.changed.iter().map(String::as_str))
    )))
}

/// Files that are there although the commit has them no more, and can't be removed: git only warns of them, and tries no
/// second time.
fn left(job: &Job, at: &Repository, before: &CommitId, commit: &CommitId) -> Result<Vec<String>, Fault> {
    let (before, commit) = (before.as_str(), commit.as_str());
    let arguments =
        ["diff-tree", "-r", "-z", "--name-only", "--no-renames", "--diff-filter=D", before, commit];
    let gone = job.git.run(Some(at), &arguments)?;
    let remains = |name: &&str| {
        let file = job.path.join(name);
        let is =
            |path: &Path, test: fn(&fs::Metadata) -> bool| path.symlink_metadata().is_ok_and(|it| test(&it));
        // What is in the place of its directory may lead to another file of that name.
        let own = file.ancestors().skip(1).take_while(|above| *above != job.path);
        let ours =
            is(&file, |it| !it.is_dir()) && own.into_iter().all(|above| is(above, fs::Metadata::is_dir));
        ours && fs::remove_file(&file).is_err()
    };
    Ok(gone.split_terminator('\0').filter(remains).map(str::to_owned).collect())
}

/// Reports how the tree stands.
///
/// # Errors
/// There is none that can be read, or a deployment is at work.
pub(super) fn look_at(job: &mut Job) -> Result<(), Fault> {
    let at = repository(&job.path);
    place::own(&at.directory)?;
    if at.directory.join(STATE).join(BUSY).exists() {
        job.told().silence();
        return Err(Fault::new("a deployment is at work, or was interrupted"));
    }
    job.git.only_look();
    job.git.disable_filters(&at)?;
    let found = status(job, &at)?;
    let mut told = job.told();
    (told.deployed.commit, told.deployed.changed) = (found.head, !found.changed.is_empty());
    Ok(())
}

/// Fetches the commit into the tree's repository, if there is one.
///
/// # Errors
/// What is there is foreign or a clone of another repository, or git's.
pub(super) fn preflight(job: &Job) -> Result<(), Fault> {
    let commit = job.commit()?;
    let at = repository(&job.path);
    let present = match at.directory.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(Fault::of(at.directory.display())(error)),
        Ok(_) => {
            place::own(&at.directory)?;
            let state = at.directory.join(STATE);
            let _locked = Locked::take(&job.path, &state, &job.deploy, &job.git)?;
            made(&at, state.join(BUSY).exists()) && store::prepare(&job.git, &at, &job.deploy, &commit)?
        }
    };
    job.told().deployed.present = Some(present);
    Ok(())
}

fn repository(path: &Path) -> Repository {
    Repository { directory: path.join(GIT), tree: Some(path.to_owned()), index: None }
}

/// Whether the path is one's own, or empty. Before it is locked: of what is not, nothing changes.
fn vet(job: &Job, at: &Repository) -> Result<(), Fault> {
    match at.directory.symlink_metadata() {
        Ok(there) if there.is_dir() => place::own(&at.directory),
        Ok(_) => Err(Fault::new(format!("{} is no directory", at.directory.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => foreign(job),
        Err(error) => Err(Fault::of(at.directory.display())(error)),
    }
}

/// Whether the repository is there, and more than the begin of a first deployment.
fn made(at: &Repository, interrupted: bool) -> bool {
    let head = at.directory.join("HEAD");
    let unborn = || fs::read_to_string(&head).is_ok_and(|head| head == "ref: refs/heads/main\n");
    head.exists() && !(interrupted && unborn())
}

/// Looks at what is there, and makes a repository where nothing is.
fn look(job: &Job, at: &Repository, commit: &CommitId) -> Result<Found, Fault> {
    let state = at.directory.join(STATE);
    let busy = fs::read_to_string(state.join(BUSY)).ok();
    let (interrupted, begun) = (busy.is_some(), busy.and_then(|commit| commit.parse().ok()));
    if !made(at, interrupted) {
        if begun.is_none() {
            // Nothing of what is there is ours yet.
            foreign(job)?;
            fs::write(state.join(BUSY), "").map_err(Fault::of(state.display()))?;
        }
        store::init(&job.git, at, &job.deploy, commit)?;
        return Ok(Found { interrupted: true, begun, ..Found::default() });
    }
    store::same_remote(&job.git, at, &job.deploy)?;
    let found = Found { interrupted, begun, ..status(job, at)? };
    if !found.changed.is_empty() && !interrupted && !job.deploy.force {
        return Err(Fault::new(format!(
            "{} was changed by hand: {}",
            job.path.display(),
            shown(found.changed.iter().map(String::as_str))
        )));
    }
    Ok(found)
}

/// Refuses a directory that holds something else.
fn foreign(job: &Job) -> Result<(), Fault> {
    let mut names = Vec::new();
    for entry in fs::read_dir(&job.path).map_err(Fault::of(job.path.display()))? {
        let entry = entry.map_err(Fault::of(job.path.display()))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| name != GIT);
    if let Some(below) = names.iter().map(|name| job.path.join(name)).find(|below| place::deployed_to(below))
    {
        return Err(Fault::new(format!("{} is deployed to by itself", below.display())));
    }
    if names.is_empty() || job.deploy.force {
        return Ok(());
    }
    names.sort_unstable();
    Err(Fault::new(format!(
        "{} is not empty and no clone of the repository; it holds {}",
        job.path.display(),
        shown(names.iter().map(String::as_str))
    )))
}

/// One look with one process: where it stands, and what was changed.
fn status(job: &Job, at: &Repository) -> Result<Found, Fault> {
    // Untracked files are the application's own; git itself overwrites none.
    let arguments = ["status", "--porcelain=v2", "--branch", "--untracked-files=no"];
    let text = job.git.run(Some(at), &arguments)?;
    Ok(read_status(&text))
}

fn read_status(text: &str) -> Found {
    let mut found = Found::default();
    for line in text.lines() {
        // Fields before the name, by the kind of line.
        let fields = match line.as_bytes().first() {
            Some(b'#') => {
                found.head = found.head.or_else(|| line.strip_prefix("# branch.oid ")?.parse().ok());
                continue;
            }
            Some(b'1') => 9,
            Some(b'2') => 10,
            Some(b'u') => 11,
            _ => continue,
        };
        let name = line.splitn(fields, ' ').last().unwrap_or(line);
        found.changed.push(name.split('\t').next().unwrap_or(name).to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read() {
        let head = "a".repeat(40);
        let text = format!(
            "# branch.oid {head}\n# branch.head (detached)\n\
             1 .M N... 100644 100644 100644 {head} {head} a file\n\
             2 R. N... 100644 100644 100644 {head} {head} R100 new\told\n\
             u UU N... 100644 100644 100644 100644 {head} {head} {head} both\n\
             1 .D N... 100644 100644 000000 {head} {head} \"\\303\\374\"\n? untracked\n"
        );
        let found = read_status(&text);
        assert_eq!(found.head.unwrap().as_str(), head);
        assert_eq!(found.changed, ["a file", "new", "both", "\"\\303\\374\""]);
        assert_eq!(read_status("# branch.oid (initial)\n").head, None);
    }
}
