//! Links what all releases share into a new one.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use signet_common::deploy::SharedPath;

use super::super::plan::Fault;

/// Links each path of the release to the same below `shared`. What is missing there is made: a copy of the release's
/// file, else a directory.
///
/// # Errors
/// The repository has a symbolic link on the way, or the system's.
pub(super) fn link(paths: &[SharedPath], shared: &Path, release: &Path) -> Result<(), Fault> {
    for path in paths {
        let place = inside(release, path)?;
        let source = shared.join(path.as_str());
        let link = || -> io::Result<()> {
            let found = place.symlink_metadata().ok();
            if source.symlink_metadata().is_err() {
                if let Some(parent) = source.parent() {
                    fs::create_dir_all(parent)?;
                }
                match &found {
                    Some(there) if there.is_file() => drop(fs::copy(&place, &source)?),
                    _ => fs::create_dir(&source)?,
                }
            }
            match found {
                Some(there) if there.is_dir() => fs::remove_dir_all(&place)?,
                Some(_) => fs::remove_file(&place)?,
                None => {}
            }
            // Relative, so that the whole path may be moved.
            let up = path.as_str().split('/').count() + 1;
            let target: PathBuf = std::iter::repeat_n("..", up).chain(["shared", path.as_str()]).collect();
            symlink(target, &place)
        };
        link().map_err(Fault::of(format!("{path} can't be shared")))?;
    }
    Ok(())
}

/// Where a path lies in the release. Its parents are made; none of them may lead elsewhere.
fn inside(release: &Path, path: &SharedPath) -> Result<PathBuf, Fault> {
    let mut place = release.to_owned();
    let mut parts = path.as_str().split('/').peekable();
    while let Some(part) = parts.next() {
        place.push(part);
        if parts.peek().is_none() {
            break;
        }
        match place.symlink_metadata() {
            Ok(there) if there.is_dir() => {}
            Ok(_) => {
                let shown = place.strip_prefix(release).unwrap_or(&place).display();
                return Err(Fault::new(format!(
                    "{path} can't be shared: {shown} is no directory in the repository"
                )));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir(&place).map_err(Fault::of(place.display()))?;
            }
            Err(error) => return Err(Fault::of(place.display())(error)),
        }
    }
    Ok(place)
}
