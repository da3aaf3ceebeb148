//! What a run needs on disk: a directory of its own, in memory, gone with the run.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};
use serde_json::{Value, json};

use crate::deploy::model::{HostKeyPolicy, Plan};
use crate::deploy::processes;
use crate::deploy::secrets::{Auth, Login};

/// What Ansible is told to do. Every value comes as an extra variable, so that nothing is part of a program's text.
const PLAYBOOK: &str = r#"- hosts: all
  gather_facts: false
  any_errors_fatal: false
  environment:
    GIT_TERMINAL_PROMPT: "0"
    GIT_ALLOW_PROTOCOL: "{{ git_protocols }}"
  tasks:
    # Sends nothing, so that what OpenSSH says of a host that it does not like is heard.
    - name: connect
      ansible.builtin.raw: "true"
      changed_when: false
    - name: git
      ansible.builtin.git:
        repo: "{{ git_repo }}"
        version: "{{ git_version }}"
        dest: "{{ dest_path }}"
        force: "{{ force }}"
        accept_newhostkey: "{{ accept_newhostkey }}"
"#;
const PLUGIN: &str = include_str!("signet_results.py");
const PLUGIN_NAME: &str = "signet_results.py";
/// What such a directory's name begins with.
const PREFIX: &str = "signet-job-";

/// In each such directory: locked for as long as its controller lives.
const LOCK: &str = "lock";

/// A directory that only this account can look into. Dropped, it is gone.
#[derive(Debug)]
pub(in crate::deploy) struct RunDir {
    path: PathBuf,
    _lock: File,
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::error!(%error, path = %self.path.display(), "a job's directory could not be removed");
        }
    }
}

/// Where run directories may be made.
fn places() -> Vec<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    [Some(PathBuf::from("/dev/shm")), runtime].into_iter().flatten().collect()
}

/// Whether what is written there stays in memory.
fn in_memory(place: &Path) -> io::Result<bool> {
    let kind = statfs(place)?.filesystem_type();
    Ok(kind == TMPFS_MAGIC || kind == RAMFS_MAGIC)
}

/// Linux's number for ramfs.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

impl RunDir {
    /// A new one, in the first place in memory that takes it. Never on a disk: secrets lie there in clear.
    pub(in crate::deploy) fn make(job: i64) -> io::Result<Self> {
        Self::make_in(&places(), job)
    }

    fn make_in(places: &[PathBuf], job: i64) -> io::Result<Self> {
        let name = format!("{PREFIX}{}-{job}-{:016x}", std::process::id(), fastrand::u64(..));
        let mut why = Vec::new();
        for place in places {
            match Self::make_at(place, &name) {
                Ok(made) => return Ok(made),
                Err(error) => why.push(format!("{}: {error}", place.display())),
            }
        }
        Err(io::Error::other(why.join("; ")))
    }

    fn make_at(place: &Path, name: &str) -> io::Result<Self> {
        if !in_memory(place)? {
            return Err(io::Error::other("no tmpfs or ramfs"));
        }
        let path = place.join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        let lock = File::create_new(path.join(LOCK))?;
        lock.try_lock()?;
        Ok(Self { path, _lock: lock })
    }

    pub(in crate::deploy) fn path(&self) -> &Path {
        &self.path
    }

    pub(in crate::deploy) fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file that only this account can read.
    pub(in crate::deploy) fn write(&self, name: &str, text: &[u8]) -> io::Result<PathBuf> {
        let path = self.at(name);
        let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(text)?;
        Ok(path)
    }

    /// Everything that is the same for all hosts.
    pub(super) fn prepare(&self, plan: &Plan, version: &str, protocols: &str) -> io::Result<()> {
        for name in ["plugins", "home", "tmp"] {
            DirBuilder::new().mode(0o700).create(self.at(name))?;
        }
        self.write("ansible.cfg", b"[defaults]\n")?;
        self.write("playbook.yml", PLAYBOOK.as_bytes())?;
        self.write(&format!("plugins/{PLUGIN_NAME}"), PLUGIN.as_bytes())?;
        let variables = json!({
            "git_repo": plan.git_repo,
            "git_version": version,
            "dest_path": plan.dest_path,
            "force": plan.options.force,
            "git_protocols": protocols,
            "accept_newhostkey": plan.options.host_key_policy != HostKeyPolicy::Strict,
        });
        self.write("variables.json", variables.to_string().as_bytes())?;
        Ok(())
    }
}

/// Removes what controllers left that were killed, once nothing of it is at work any more.
pub(in crate::deploy) fn tidy(data_dir: &Path) {
    // Older versions fell back to the data directory.
    for place in places().into_iter().chain([data_dir.to_owned()]) {
        let Ok(entries) = fs::read_dir(&place) else { continue };
        for entry in entries.flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
            let Some(owner) = rest.split('-').next().and_then(|pid| pid.parse().ok()) else { continue };
            if !abandoned(&path, owner) {
                continue;
            }
            processes::end(&path.display().to_string());
            if let Err(error) = fs::remove_dir_all(&path) {
                tracing::debug!(%error, path = %path.display(), "a job's old directory was not removed");
            }
        }
    }
}

/// Whether the controller that made a run's directory is gone.
fn abandoned(dir: &Path, owner: u32) -> bool {
    match File::open(dir.join(LOCK)) {
        Ok(lock) => lock.try_lock().is_ok(),
        // It may be just about to lock it.
        Err(_) => owner == std::process::id() || !Path::new(&format!("/proc/{owner}")).exists(),
    }
}

/// A host as Ansible is told of it.
#[derive(Debug)]
pub(super) struct Host<'a> {
    /// What the log calls it.
    pub(super) alias: &'a str,
    pub(super) index: usize,
    pub(super) login: &'a Login,
    /// Its key, if one is pinned.
    pub(super) pinned: Option<&'a str>,
}

/// The file in which a host's key is looked up, and where its first key is noted.
pub(super) fn known_hosts(dir: &RunDir, index: usize) -> PathBuf {
    dir.at(&format!("known-{index}"))
}

/// As OpenSSH names a host in such a file.
fn known_name(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if port == 22 { host } else { format!("[{host}]:{port}") }
}

/// The key in a file of known hosts: its type and the key itself.
pub(super) fn first_key(text: &str) -> Option<String> {
    let line = text.lines().find(|line| !line.starts_with('#') && !line.trim().is_empty())?;
    let mut words = line.split_whitespace().skip(1);
    Some(format!("{} {}", words.next()?, words.next()?))
}

/// The name of the file in which a wave's hosts stand.
pub(super) fn inventory_name(wave: usize) -> String {
    format!("inventory-{wave}.json")
}

/// The name of the file in which a wave's results are told.
pub(super) fn results_name(wave: usize) -> String {
    format!("results-{wave}")
}

/// Writes a wave's inventory, with what each host needs to let us in.
pub(super) fn inventory(
    dir: &RunDir,
    wave: usize,
    hosts: &[Host<'_>],
    policy: HostKeyPolicy,
) -> io::Result<()> {
    let mut all = serde_json::Map::new();
    for host in hosts {
        all.insert(host.alias.to_owned(), variables(dir, host, policy)?);
    }
    let text = json!({ "all": { "hosts": all } }).to_string();
    dir.write(&results_name(wave), b"")?;
    dir.write(&inventory_name(wave), text.as_bytes()).map(drop)
}

fn variables(dir: &RunDir, host: &Host<'_>, policy: HostKeyPolicy) -> io::Result<Value> {
    let login = host.login;
    let known = match policy {
        HostKeyPolicy::Off => PathBuf::from("/dev/null"),
        HostKeyPolicy::Pin | HostKeyPolicy::Strict => {
            let line = host.pinned.map(|key| format!("{} {key}\n", known_name(&login.host, login.port)));
            dir.write(&format!("known-{}", host.index), line.unwrap_or_default().as_bytes())?
        }
    };
    // A pinned host may not show a key of another kind either.
    let checking = match (policy, host.pinned) {
        (HostKeyPolicy::Off, _) => "no",
        (HostKeyPolicy::Pin, None) => "accept-new",
        (HostKeyPolicy::Pin, Some(_)) | (HostKeyPolicy::Strict, _) => "yes",
    };
    let mut arguments = vec![
        "-F none".to_owned(),
        format!("-o UserKnownHostsFile={}", known.display()),
        "-o GlobalKnownHostsFile=/dev/null".into(),
        format!("-o StrictHostKeyChecking={checking}"),
        "-o UpdateHostKeys=no -o HashKnownHosts=no -o CheckHostIP=no -o VerifyHostKeyDNS=no".into(),
        "-o NumberOfPasswordPrompts=1 -o ForwardAgent=no -o IdentityAgent=none".into(),
        "-o ServerAliveInterval=15 -o ServerAliveCountMax=4".into(),
    ];
    let mut value = json!({
        "ansible_connection": "ssh",
        "ansible_host": login.host,
        "ansible_port": login.port,
        "ansible_user": login.username,
        "ansible_python_interpreter": "auto_silent",
    });
    match &login.auth {
        Auth::PrivateKey { .. } => {
            value["ansible_ssh_private_key_file"] =
                dir.at(&key_name(host.index)).display().to_string().into();
            arguments.push("-o IdentitiesOnly=yes -o PreferredAuthentications=publickey".into());
        }
        Auth::Password { password } => {
            let path = dir.write(&format!("password-{}", host.index), password.reveal().as_bytes())?;
            // Read when it is needed, and never taken for a template itself, whatever stands in it.
            value["ansible_password"] =
                format!("{{{{ lookup('ansible.builtin.file', '{}', rstrip=False) }}}}", path.display())
                    .into();
            arguments.push(
                "-o PubkeyAuthentication=no -o PreferredAuthentications=password,keyboard-interactive".into(),
            );
        }
    }
    value["ansible_ssh_common_args"] = arguments.join(" ").into();
    Ok(value)
}

/// The name of the file in which a host's private key lies.
pub(super) fn key_name(index: usize) -> String {
    format!("key-{index}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_to_a_disk() {
        // It stands for a disk: no tmpfs, on any machine.
        let disk = PathBuf::from("/proc/self");
        assert!(!in_memory(&disk).unwrap());
        let gone = PathBuf::from("/nonexistent");
        let why = RunDir::make_in(&[disk.clone(), gone.clone()], 7).unwrap_err().to_string();
        assert!(why.contains("/proc/self: no tmpfs") && why.contains("/nonexistent: "), "{why}");
        let made = RunDir::make_in(&[gone, disk, PathBuf::from("/dev/shm")], 7).unwrap();
        assert!(made.path().starts_with("/dev/shm") && made.at(LOCK).exists());
        let path = made.path().to_owned();
        drop(made);
        assert!(!path.exists());
    }
}
