//! Links what all releases share into a new one.

use std::fs;
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};

use nix::libc::O_NOFOLLOW;
use signet_common::deploy::SharedPath;

use super::super::plan::Fault;
use super::super::say::say;

/// The end of a copy's name until it is whole.
const NEXT: &str = ".signet-next";

/// Links each path of the release to the same below `shared`. What is missing there is made: a copy of the release's
/// file, else a directory.
///
/// # Errors
/// The repository, or what is shared, has a symbolic link on the way, or the system's.
pub(super) fn link(paths: &[SharedPath], shared: &Path, release: &Path) -> Result<(), Fault> {
    for path in paths {
        let place = inside(release, path, "the repository")?;
        let source = inside(shared, path, "what is shared")?;
        let link = || -> io::Result<()> {
            let found = place.symlink_metadata().ok();
            if source.symlink_metadata().is_err() {
                match &found {
                    Some(there) if there.is_file() => copy(&place, &source)?,
                    _ => fs::create_dir(&source)?,
                }
            }
            match found {
                Some(there) if there.is_dir() => fs::remove_dir_all(&place)?,
                Some(_) => fs::remove_file(&place)?,
                None => {}
            }
            symlink(target(path), &place)
        };
        link().map_err(Fault::of(format!("{path} can't be shared")))?;
    }
    Ok(())
}

/// Where the link of a path leads: relative, so that the whole may be moved.
fn target(path: &SharedPath) -> PathBuf {
    let up = path.as_str().split('/').count() + 1;
    std::iter::repeat_n("..", up).chain(["shared", path.as_str()]).collect()
}

/// Links those paths of a release that serves at which nothing stands. Nothing of it is removed: gives the paths at which it
/// has something of its own, or that can't be linked.
pub(super) fn link_missing<'a>(
    paths: &'a [SharedPath],
    shared: &Path,
    release: &Path,
) -> Vec<&'a SharedPath> {
    let linked = |path: &SharedPath| match release.join(path.as_str()).read_link() {
        Ok(leads) => leads == target(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match link_one(path, shared, release) {
            Ok(()) => true,
            Err(fault) => {
                say(&fault.to_string());
                false
            }
        },
        Err(_) => false,
    };
    paths.iter().filter(|path| !linked(path)).collect()
}

fn link_one(path: &SharedPath, shared: &Path, release: &Path) -> Result<(), Fault> {
    let place = inside(release, path, "the release")?;
    let source = inside(shared, path, "what is shared")?;
    let link = || -> io::Result<()> {
        if source.symlink_metadata().is_err() {
            fs::create_dir(&source)?;
        }
        symlink(target(path), &place)
    };
    link().map_err(Fault::of(format!("{path} can't be shared")))
}

/// Copies a file to a name that nobody else could have prepared, and gives it its own when it is whole.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut next = to.as_os_str().to_owned();
    next.push(NEXT);
    match fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut from = fs::OpenOptions::new().read(true).custom_flags(O_NOFOLLOW).open(from)?;
    let mut made = fs::OpenOptions::new();
    let mut made = made.write(true).create_new(true).mode(0o600).custom_flags(O_NOFOLLOW).open(&next)?;
    io::copy(&mut from, &mut made)?;
    made.set_permissions(from.metadata()?.permissions())?;
    fs::rename(&next, to)
}

/// Where a path lies in `root`. Its parents are made; none of them may lead elsewhere. `what` is the root for a person.
fn inside(root: &Path, path: &SharedPath, what: &str) -> Result<PathBuf, Fault> {
    let mut place = root.to_owned();
    fs::create_dir_all(&place).map_err(Fault::of(place.display()))?;
    let mut parts = path.as_str().split('/').peekable();
    while let Some(part) = parts.next() {
        place.push(part);
        if parts.peek().is_none() {
            break;
        }
        match place.symlink_metadata() {
            Ok(there) if there.is_dir() => {}
            Ok(_) => {
                let shown = place.strip_prefix(root).unwrap_or(&place).display();
                return Err(Fault::new(format!("{path} can't be shared: {shown} is no directory in {what}")));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir(&place).map_err(Fault::of(place.display()))?;
            }
            Err(error) => return Err(Fault::of(place.display())(error)),
        }
    }
    Ok(place)
}
