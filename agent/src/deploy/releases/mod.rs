//! Releases beside one bare mirror, and a symbolic link that is switched from one to the next.
//!
//! ```text
//! PATH/repo.git            the mirror; repo.git/signet holds one record for each complete release
//! PATH/releases/<time>-<commit>
//! PATH/shared              what all releases share
//! PATH/current             → releases/<time>-<commit>
//! ```
//! A release without a record is one that an earlier deployment did not finish; it is removed, and never becomes current.

pub(super) mod layout;
mod shared;

use std::sync::atomic::Ordering;

use signet_common::deploy::{CommitId, Releases, SharedPath};
use signet_common::fault::{self, DeployPoint};

use super::git::Repository;
use super::hooks::Stage;
use super::job::Job;
use super::place::{self, Locked, MIRROR};
use super::plan::{Fault, shown};
use super::say::say;
use super::store;
use layout::Layout;

/// Brings the commit to the path as a new release, or as one that is still there. Where it stands already only its health
/// is asked for.
///
/// # Errors
/// A step failed; then the release before is current.
pub(super) fn deploy(job: &mut Job, how: &Releases) -> Result<(), Fault> {
    let commit = job.commit()?;
    job.make_place()?;
    let layout = Layout::of(&job.path, job.deploy.force)?;
    let _locked = Locked::take(&job.path, &layout.state, &job.deploy, &job.git)?;
    fault::hit(DeployPoint::Locked);
    let whole = whole(&layout);
    if whole {
        store::same_remote(&job.git, &mirror(&layout), &job.deploy)?;
    }
    let current = layout.current()?;
    let record = current.as_deref().and_then(|name| layout.record(name));
    {
        let before = record.as_ref().map(|record| record.commit.clone());
        let mut told = job.told();
        (told.deployed.before, told.deployed.commit) = (before.clone(), before);
        told.deployed.release = current.clone();
    }
    let good = record.is_some_and(|record| record.good && record.commit == commit);
    let stands = current.as_ref().filter(|_| good && !job.deploy.force);
    if stands.is_none() || job.deploy.allowed_signers.is_some() {
        place::unlock_git(&layout.mirror)?;
        if let Err(fault) = prepare(job, &layout, &commit, whole) {
            if !whole && !job.git.killed().load(Ordering::Relaxed) {
                layout.unmake();
            }
            return Err(fault);
        }
    }
    if let Some(name) = stands {
        return stay(job, how, &layout, &commit, name);
    }
    layout.remove_unfinished(current.as_deref());
    let kept = if job.deploy.rollback {
        layout.newest(|record| record.good && record.commit == commit)?
    } else {
        None
    };
    let new = kept.is_none();
    let release = match kept {
        Some(release) => {
            say(&format!("taking release {release} again"));
            release
        }
        None => build(job, how, &layout, &commit)?,
    };
    switch(job, how, &layout, &commit, &release, new)?;
    layout.clean(how.keep, &release);
    fault::hit(DeployPoint::Cleaned);
    Ok(())
}

/// The mirror has the commit, and whoever must have signed it did.
fn prepare(job: &Job, layout: &Layout, commit: &CommitId, whole: bool) -> Result<(), Fault> {
    let at = mirror(layout);
    if !whole {
        store::init(&job.git, &at, &job.deploy, commit)?;
        store::take_remote(&job.git, &at, &job.deploy)?;
    }
    store::plain(&at, &job.deploy)?;
    if !store::has(&job.git, &at, commit)? {
        say(&format!("fetching {commit} from {}", job.deploy.repository));
        store::fetch(&job.git, &at, &job.deploy, commit)?;
    }
    fault::hit(DeployPoint::Fetched);
    store::verify(&job.git, &at, &job.deploy, commit)
}

/// What is left to do where a release of the commit is current and has shown that it works.
fn stay(job: &mut Job, how: &Releases, layout: &Layout, commit: &CommitId, name: &str) -> Result<(), Fault> {
    let edited = edited(job, layout, name)?;
    if !edited.is_empty() {
        let names = shown(edited.lines().collect::<Vec<_>>().into_iter());
        let current = layout.release(name);
        return Err(Fault::new(format!(
            "{} was changed by hand: {names} (force makes a new release)",
            current.display()
        )));
    }
    say(&format!("{} stands on {commit} already", job.path.display()));
    let directory = layout.release(name);
    let unshared = shared::link_missing(&how.shared, &layout.shared, &directory);
    if let Some(line) = not_done(how, &unshared, commit) {
        say(&line);
    }
    let Some(health) = &how.health else { return Ok(()) };
    job.git.forget_credential()?;
    let healthy = Stage { path: &layout.path, release: &directory, commit }.prove(health);
    healthy.map_err(|fault| {
        Fault::new(format!(
            "{fault}; nothing was taken back, because no release was switched: {name} was current"
        ))
    })
}

/// A line about what a new release would have brought along.
fn not_done(how: &Releases, unshared: &[&SharedPath], commit: &CommitId) -> Option<String> {
    let hooks = match (how.build.is_empty(), how.activate.is_empty()) {
        (true, true) => None,
        (false, true) => Some("build hooks are not run".to_owned()),
        (true, false) => Some("activate hooks are not run".to_owned()),
        (false, false) => Some("build and activate hooks are not run".to_owned()),
    };
    let links = (!unshared.is_empty()).then(|| {
        let names = shown(unshared.iter().map(|path| path.as_str()));
        format!("what the release has of its own at {names} is not shared")
    });
    let what: Vec<String> = hooks.into_iter().chain(links).collect();
    (!what.is_empty())
        .then(|| format!("{}: {commit} stands here already (force makes a new release)", what.join(", and ")))
}

/// Whether the mirror is there, with what git makes last.
fn whole(layout: &Layout) -> bool {
    ["HEAD", "config", "objects/pack"].iter().all(|part| layout.mirror.join(part).exists())
}

fn mirror(layout: &Layout) -> Repository {
    Repository { directory: layout.mirror.clone(), tree: None, index: None }
}

/// Makes a complete release. One that fails leaves nothing behind.
fn build(job: &mut Job, how: &Releases, layout: &Layout, commit: &CommitId) -> Result<String, Fault> {
    let name = layout.new_name(commit)?;
    match fill(job, how, layout, commit, &name) {
        Ok(()) => Ok(name),
        Err(fault) => {
            layout.remove(&name);
            Err(fault)
        }
    }
}

fn fill(job: &mut Job, how: &Releases, layout: &Layout, commit: &CommitId, name: &str) -> Result<(), Fault> {
    let directory = layout.release(name);
    let at = tree(layout, name);
    job.git.disable_filters(&at)?;
    say(&format!("checking out {commit} as release {name}"));
    job.git.run(Some(&at), &["read-tree", "--reset", "-u", commit.as_str()])?;
    store::submodules(&job.git, &at, &job.deploy)?;
    fault::hit(DeployPoint::CheckedOut);
    shared::link(&how.shared, &layout.shared, &directory)?;
    fault::hit(DeployPoint::Linked);
    // What hooks run may be the repository's own.
    job.git.forget_credential()?;
    Stage { path: &layout.path, release: &directory, commit }.run("build", &how.build)?;
    // What hooks and links changed was not changed by hand. A release serves also when that can't be noted.
    job.git.ask(&at, &["add", "--update"])?;
    layout.finish(name, commit)?;
    fault::hit(DeployPoint::Built);
    Ok(())
}

/// Makes a release current and has it show that it works. Else the one before is current again.
fn switch(
    job: &mut Job,
    how: &Releases,
    layout: &Layout,
    commit: &CommitId,
    release: &str,
    new: bool,
) -> Result<(), Fault> {
    job.git.forget_credential()?;
    let undo = layout.undo(release)?;
    fault::hit(DeployPoint::BeforeSwitch);
    {
        let mut told = job.told();
        layout.switch(release)?;
        told.undo = Some(undo);
        (told.deployed.commit, told.deployed.changed) = (Some(commit.clone()), true);
        told.deployed.release = Some(release.to_owned());
    }
    fault::hit(DeployPoint::AfterSwitch);
    if let Err(fault) = prove(job, how, layout, commit, release, new) {
        return Err(go_back(job, how, layout, fault));
    }
    job.told().undo = None;
    fault::hit(DeployPoint::Healthy);
    Ok(())
}

/// Runs the activate hooks in a release. What they change there was not changed by hand, unless something was before them.
fn activate(
    job: &mut Job,
    how: &Releases,
    layout: &Layout,
    commit: &CommitId,
    release: &str,
    new: bool,
) -> Result<(), Fault> {
    if how.activate.is_empty() {
        return Ok(());
    }
    let untouched = new || edited(job, layout, release).is_ok_and(|names| names.is_empty());
    let directory = layout.release(release);
    let done = Stage { path: &layout.path, release: &directory, commit }.run("activate", &how.activate);
    if untouched {
        let noted = job.git.ask(&tree(layout, release), &["add", "--update"]);
        return done.and(noted.map(drop));
    }
    done
}

fn prove(
    job: &mut Job,
    how: &Releases,
    layout: &Layout,
    commit: &CommitId,
    release: &str,
    new: bool,
) -> Result<(), Fault> {
    activate(job, how, layout, commit, release, new)?;
    fault::hit(DeployPoint::Activated);
    if let Some(health) = &how.health {
        let directory = layout.release(release);
        Stage { path: &layout.path, release: &directory, commit }.prove(health)?;
    }
    layout.mark_good(release, commit)
}

/// The release before is current again, and this job's activate hooks run there: it knows no others. Gives the fault that
/// led to this, and what became of it.
fn go_back(job: &mut Job, how: &Releases, layout: &Layout, fault: Fault) -> Fault {
    say(&format!("{fault}; going back"));
    let (name, commit) = {
        let mut told = job.told();
        if let Err(error) = told.take_back() {
            return Fault::new(format!("{fault}; and going back failed: {error}"));
        }
        (told.deployed.release.clone(), told.deployed.commit.clone())
    };
    let and = |what: String| Fault::new(format!("{fault}; {what}"));
    let Some(name) = name else {
        return and("nothing was there before, so `current` was removed".to_owned());
    };
    let Some(commit) = commit else {
        return and(format!("back on {name}, which is no release of ours: no hooks are run there"));
    };
    if !how.activate.is_empty() {
        say(&format!("running the activate hooks of this job again, in {name}"));
    }
    match activate(job, how, layout, &commit, &name, false) {
        Ok(()) => and(format!("back on {name} {commit}")),
        Err(error) => and(format!("back on {name}, but there {error}")),
    }
}

/// Reports how the current release stands.
///
/// # Errors
/// There is none, or git's.
pub(super) fn look_at(job: &mut Job) -> Result<(), Fault> {
    place::own(&job.path.join(MIRROR))?;
    let layout = Layout::of(&job.path, false)?;
    let name = layout.current()?.ok_or_else(|| Fault::new("no release is current"))?;
    let record = layout.record(&name).ok_or_else(|| Fault::new("the current release is none of ours"))?;
    job.git.only_look();
    let edited = edited(job, &layout, &name)?;
    let mut told = job.told();
    (told.deployed.commit, told.deployed.release) = (Some(record.commit), Some(name));
    told.deployed.changed = !edited.is_empty();
    Ok(())
}

/// Names of a release's files that were changed by hand, one a line. One look with one process.
fn edited(job: &mut Job, layout: &Layout, name: &str) -> Result<String, Fault> {
    let at = tree(layout, name);
    job.git.disable_filters(&at)?;
    job.git.run(Some(&at), &["diff", "--name-only", "--no-ext-diff", "--ignore-submodules=all"])
}

/// A release's own index, as it was when it was built.
fn tree(layout: &Layout, name: &str) -> Repository {
    Repository { tree: Some(layout.release(name)), index: Some(layout.index(name)), ..mirror(layout) }
}

/// Fetches the commit into the mirror, if there is one of this repository.
///
/// # Errors
/// It is of another, or git's.
pub(super) fn preflight(job: &Job) -> Result<(), Fault> {
    let commit = job.commit()?;
    let mut present = false;
    if job.path.join(MIRROR).join("HEAD").exists() {
        let layout = Layout::of(&job.path, false)?;
        let _locked = Locked::take(&job.path, &layout.state, &job.deploy, &job.git)?;
        place::unlock_git(&layout.mirror)?;
        present = store::prepare(&job.git, &mirror(&layout), &job.deploy, &commit)?;
    }
    job.told().deployed.present = Some(present);
    Ok(())
}
