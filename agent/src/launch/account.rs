//! Who the command runs as.

use std::ffi::CString;
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use nix::unistd::{Gid, Uid, User, getgid, getuid, initgroups, setresgid, setresuid};

/// Where programs are looked for unless the command says otherwise; the same for everybody, as with `sudo`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An account of this host, and whether it has to be become.
#[derive(Debug)]
pub(super) struct Account {
    name: String,
    uid: Uid,
    gid: Gid,
    home: PathBuf,
    shell: PathBuf,
    change: bool,
}

impl Account {
    /// The requested account, or the agent's own.
    ///
    /// # Errors
    /// A sentence: no such user, or no right to become it.
    pub(super) fn find(requested: Option<&str>) -> Result<Self, String> {
        let own = getuid();
        let found = match requested {
            None => User::from_uid(own),
            Some(name) => User::from_name(name),
        };
        let user = found.map_err(|error| format!("the user database cannot be read: {error}"))?;
        match (user, requested) {
            (None, Some(name)) => Err(format!("there is no user {name} on this host")),
            // A container may run as a number that nobody has named.
            (None, None) => Ok(Self {
                name: own.to_string(),
                uid: own,
                gid: getgid(),
                home: PathBuf::from("/"),
                shell: PathBuf::from("/bin/sh"),
                change: false,
            }),
            (Some(user), Some(name)) if user.uid != own && !own.is_root() => {
                Err(format!("the agent may not become {name}: it runs as {}, not as root", name_of(own)))
            }
            (Some(user), _) => Ok(Self {
                change: requested.is_some() && own.is_root(),
                name: user.name,
                uid: user.uid,
                gid: user.gid,
                home: user.dir,
                shell: user.shell,
            }),
        }
    }

    /// Becomes it, with all of its groups. The output's pipes become its own, so that `/dev/stdout` opens.
    ///
    /// # Errors
    /// A sentence.
    pub(super) fn enter(&self) -> Result<(), String> {
        if !self.change {
            return Ok(());
        }
        let (uid, gid) = (self.uid.as_raw(), self.gid.as_raw());
        let switch = || -> io::Result<()> {
            fchown(io::stdout(), Some(uid), Some(gid))?;
            fchown(io::stderr(), Some(uid), Some(gid))?;
            initgroups(&CString::new(self.name.as_str())?, self.gid)?;
            setresgid(self.gid, self.gid, self.gid)?;
            setresuid(self.uid, self.uid, self.uid)?;
            Ok(())
        };
        switch().map_err(|error| format!("the agent may not become {}: {error}", self.name))
    }

    /// Creates a file that it may write to, wherever that lies.
    ///
    /// # Errors
    /// A sentence.
    pub(super) fn report(&self, file: &Path) -> Result<fs::File, String> {
        let create = || -> io::Result<fs::File> {
            let report =
                fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
            if self.change {
                fchown(&report, Some(self.uid.as_raw()), Some(self.gid.as_raw()))?;
            }
            Ok(report)
        };
        create().map_err(|error| format!("{} can't be written: {error}", file.display()))
    }

    /// The name, for messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Goes to the given directory, or home, or to `/` when home is missing.
    ///
    /// # Errors
    /// A sentence about the given directory.
    pub(super) fn go(&self, cwd: Option<&Path>) -> Result<(), String> {
        let Some(directory) = cwd else {
            return env::set_current_dir(&self.home)
                .or_else(|_| env::set_current_dir("/"))
                .map_err(|error| format!("the root directory cannot be entered: {error}"));
        };
        env::set_current_dir(directory).map_err(|error| {
            let shown = directory.display();
            match error.kind() {
                io::ErrorKind::NotFound => format!("there is no directory {shown}"),
                io::ErrorKind::NotADirectory => format!("{shown} is not a directory"),
                io::ErrorKind::PermissionDenied => format!("{} may not enter {shown}", self.name),
                _ => format!("{shown} cannot be entered: {error}"),
            }
        })
    }

    /// The clean environment that every command begins with.
    pub(super) fn environment(&self) -> [(&'static str, &std::ffi::OsStr); 5] {
        [
            ("HOME", self.home.as_os_str()),
            ("USER", self.name.as_ref()),
            ("LOGNAME", self.name.as_ref()),
            ("SHELL", self.shell.as_os_str()),
            ("PATH", PATH.as_ref()),
        ]
    }
}

fn name_of(uid: Uid) -> String {
    match User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}
