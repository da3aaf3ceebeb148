//! Asks a repository to which commit a name leads, from the controller. What answers is a stranger's server: it gets so
//! much time and so much room, and nothing that it says is believed to be printable.

use std::collections::HashMap;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use signet_common::deploy::{CommitId, GitRef, GitUrl};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;

use super::model::Job;
use super::secrets::credential_telltales;
use super::service::Jobs;
use super::ssh::{RunDir, no_place};
use super::text::{blotted, reason};
use crate::limits::{
    LS_REMOTE_BYTES_MAX, LS_REMOTE_COMPLAINT_BYTES_MAX, LS_REMOTE_SECONDS_MAX, LS_REMOTES_AT_ONCE,
};
use crate::repositories::Credential;

/// What every deploy key without hosts of its own is checked against: the first key of a host is noted, and must be shown
/// again.
const KNOWN_HOSTS: &str = "git-known-hosts";
const SSH: &str =
    "ssh -F none -o BatchMode=yes -o IdentityAgent=none -o UpdateHostKeys=no -o ForwardAgent=no";

/// Who may ask at the same time.
static TURNS: Semaphore = Semaphore::const_new(LS_REMOTES_AT_ONCE);

/// The commit of a job's branch or tag, or in words for people why it is not known.
pub(super) async fn commit(
    jobs: &Jobs,
    job: &Job,
    credential: Option<&Credential>,
) -> Result<CommitId, String> {
    let names = names(job.plan.git_branch.as_deref());
    let text = references(jobs, job, credential, &names).await?;
    let found: HashMap<&str, &str> = text
        .lines()
        .filter_map(|l| l.split_once('\t'))
        .map(|(c, n)| (n, c))
        .filter(|(_, c)| !c.starts_with("ref: "))
        .collect();
    let commit = names.iter().find_map(|name| found.get(name.as_str())?.parse().ok());
    let hint = || job.plan.git_branch.as_deref().map_or("", GitRef::hint);
    commit.ok_or_else(|| format!("the repository has no such branch or tag{}", hint()))
}

/// The repository's default branch, or in words for people why it is not known.
pub(super) async fn default_branch(
    jobs: &Jobs,
    job: &Job,
    credential: Option<&Credential>,
) -> Result<GitRef, String> {
    let text = references(jobs, job, credential, &names(None)).await?;
    let name = |line: &str| line.strip_prefix("ref: refs/heads/")?.strip_suffix("\tHEAD")?.parse().ok();
    text.lines().find_map(name).ok_or_else(|| "the repository has no default branch".into())
}

/// What the repository says of these references: lines as `git ls-remote --symref` writes them.
async fn references(
    jobs: &Jobs,
    job: &Job,
    credential: Option<&Credential>,
    names: &[String],
) -> Result<String, String> {
    let _turn = TURNS.acquire().await.map_err(|e| e.to_string())?;
    let access = Access::new(jobs, job, credential).map_err(|e| no_place(&e))?;
    let mut command = Command::new("git");
    for setting in &access.configuration {
        command.args(["-c", setting]);
    }
    command
        .args(["ls-remote", "--symref", "--", &job.plan.git_repo])
        .args(names)
        .env_clear()
        .envs(
            ["PATH", "GIT_SSL_CAINFO", "SSL_CERT_FILE"]
                .iter()
                .filter_map(|n| Some((n, std::env::var_os(n)?))),
        )
        .env("HOME", "/nonexistent")
        .env("LC_ALL", "C")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_ALLOW_PROTOCOL", jobs.rules().protocols_for_git())
        .env("GIT_SSH_COMMAND", &access.ssh)
        .current_dir("/");
    let said = answer(&mut command).await;
    let clean = |text: String| cleaned(&text, &access);
    let said = said.map_err(clean)?;
    if !said.status.success() {
        return Err(clean(String::from_utf8_lossy(&said.stderr).into_owned()));
    }
    Ok(String::from_utf8_lossy(&said.stdout).into_owned())
}

/// What to ask for; the first that is there counts.
fn names(branch: Option<&str>) -> Vec<String> {
    match branch {
        None => vec!["HEAD".into()],
        Some(name) if name.starts_with("refs/") => vec![format!("{name}^{{}}"), name.to_owned()],
        Some(name) => {
            vec![format!("refs/heads/{name}"), format!("refs/tags/{name}^{{}}"), format!("refs/tags/{name}")]
        }
    }
}

/// How git gets in. Secrets lie in files that go with it.
struct Access {
    configuration: Vec<String>,
    ssh: String,
    telltales: Vec<String>,
    dir: Option<RunDir>,
}

impl Access {
    fn new(jobs: &Jobs, job: &Job, credential: Option<&Credential>) -> io::Result<Self> {
        // No helper of anybody's is asked.
        let configuration = vec!["credential.helper=".to_owned()];
        let nobody = format!("{SSH} -o IdentityFile=none");
        let Some(credential) = credential else {
            return Ok(Self { configuration, ssh: nobody, telltales: Vec::new(), dir: None });
        };
        let dir = RunDir::make(job.id)?;
        let telltales = credential_telltales(credential);
        match credential {
            Credential::DeployKey { private_key, known_hosts } => {
                let key = dir.write("key", private_key.reveal().as_bytes())?;
                let known = match known_hosts {
                    Some(lines) => dir.write("known", format!("{}\n", lines.trim_end()).as_bytes())?,
                    None => {
                        let known = dir.at("known");
                        std::os::unix::fs::symlink(jobs.rules().data_dir.join(KNOWN_HOSTS), &known)?;
                        known
                    }
                };
                let checking = if known_hosts.is_some() { "yes" } else { "accept-new" };
                let ssh = format!(
                    "{SSH} -o IdentitiesOnly=yes -o PreferredAuthentications=publickey -i '{}' \
                     -o StrictHostKeyChecking={checking} -o GlobalKnownHostsFile=/dev/null -o UserKnownHostsFile='{}'",
                    key.display(),
                    known.display()
                );
                Ok(Self { configuration, ssh, telltales, dir: Some(dir) })
            }
            Credential::HttpsToken { token, username } => {
                let user = username.as_deref().unwrap_or("git");
                let file =
                    dir.write("token", format!("username={user}\npassword={}\n", token.reveal()).as_bytes())?;
                // For this server alone: one to which it redirects gets nothing.
                let url = job.plan.git_repo.parse::<GitUrl>().ok();
                let origin =
                    url.as_ref().and_then(GitUrl::origin).ok_or_else(|| io::Error::other("no server"))?;
                let helper = format!("!f() {{ test \"$1\" = get && cat '{}'; }}; f", file.display());
                let own = format!("credential.{origin}.helper={helper}");
                Ok(Self {
                    configuration: [configuration, vec![own]].concat(),
                    ssh: nobody,
                    telltales,
                    dir: Some(dir),
                })
            }
        }
    }
}

/// One line, without secrets, users in addresses, and names of files that are gone.
fn cleaned(text: &str, access: &Access) -> String {
    let dir = access.dir.as_ref().map(|dir| format!("{}/", dir.path().display()));
    let text = dir.map_or_else(|| text.to_owned(), |dir| text.replace(&dir, ""));
    reason(&blotted(&without_users(&text), &access.telltales))
}

/// `https://user:password@host` as `https://***@host`.
fn without_users(text: &str) -> String {
    let mut parts = text.split("://");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str("://");
        let end =
            part.find(|c: char| c == '/' || c.is_whitespace() || "'\"".contains(c)).unwrap_or(part.len());
        let (authority, rest) = part.split_at(end);
        match authority.rsplit_once('@') {
            Some((_, host)) => out.push_str(&format!("***@{host}")),
            None => out.push_str(authority),
        }
        out.push_str(rest);
    }
    out
}

/// What a program said.
struct Said {
    status: ExitStatus,
    stdout: Vec<u8>,
    /// The end of it.
    stderr: Vec<u8>,
}

/// A process group that is killed as a whole, unless its end was seen.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0
            && let Err(error) = killpg(group, Signal::SIGKILL)
        {
            tracing::debug!(%error, %group, "git was gone already");
        }
    }
}

/// Runs it, for so long and with so much of an answer at most.
async fn answer(command: &mut Command) -> Result<Said, String> {
    let limit = Duration::from_secs(LS_REMOTE_SECONDS_MAX);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| format!("git could not be started: {error}"))?;
    let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
    match tokio::time::timeout(limit, heard(&mut child)).await {
        Ok(Ok(Some(said))) => {
            group.0 = None;
            Ok(said)
        }
        Ok(Ok(None)) => {
            Err(format!("the repository answered with more than {LS_REMOTE_BYTES_MAX} bytes of references"))
        }
        Ok(Err(error)) => Err(format!("git could not be heard: {error}")),
        Err(_) => Err(format!("git had no answer within {} s", limit.as_secs())),
    }
}

/// Everything that it says, and how it ends; nothing when it says too much.
async fn heard(child: &mut Child) -> io::Result<Option<Said>> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let answer = async {
        let mut all = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(LS_REMOTE_BYTES_MAX + 1).read_to_end(&mut all).await?;
        }
        if all.len() as u64 > LS_REMOTE_BYTES_MAX { Err(None) } else { Ok(all) }
    };
    let complaints = async { last(stderr).await.map_err(Some) };
    match tokio::try_join!(answer, complaints) {
        Ok((stdout, stderr)) => Ok(Some(Said { status: child.wait().await?, stdout, stderr })),
        Err(None) => Ok(None),
        Err(Some(error)) => Err(error),
    }
}

/// The end of a stream.
async fn last(stream: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let (mut kept, mut piece) = (Vec::new(), [0; 1024]);
    let Some(mut stream) = stream else { return Ok(kept) };
    loop {
        match stream.read(&mut piece).await? {
            0 => return Ok(kept),
            read => {
                kept.extend_from_slice(piece.get(..read).unwrap_or_default());
                kept.drain(..kept.len().saturating_sub(LS_REMOTE_COMPLAINT_BYTES_MAX));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use signet_testkit::eventually;

    fn shell(text: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", text]);
        command
    }

    #[tokio::test]
    async fn an_answer_is_bounded_and_leaves_nothing_behind() {
        let said = answer(&mut shell("echo a; yes complaint | head -c 1000000 >&2; echo end >&2; exit 3"))
            .await
            .unwrap();
        assert_eq!((said.stdout.as_slice(), said.status.code()), (&b"a\n"[..], Some(3)));
        assert!(said.stderr.len() == LS_REMOTE_COMPLAINT_BYTES_MAX && said.stderr.ends_with(b"end\n"));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        // Its child goes on alone, and is ended with it.
        let text = format!("sleep 1000 & echo $! > {}; exec yes", file.display());
        let why = answer(&mut shell(&text)).await.err().unwrap();
        assert!(why.contains("bytes of references"), "{why}");
        let gone = |file: std::path::PathBuf| async move {
            eventually(Duration::from_secs(20), "the sleep to be gone", async || {
                let pid = std::fs::read_to_string(&file).unwrap();
                let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
                (state.is_empty() || state.contains(") Z ")).then_some(())
            })
            .await;
        };
        gone(file.clone()).await;
        // Likewise when nobody waits any more.
        std::fs::remove_file(&file).unwrap();
        let text = format!("sleep 1000 & echo $! > {}; wait", file.display());
        let mut command = shell(&text);
        let begun = eventually(Duration::from_secs(20), "it to begin", async || {
            std::fs::read_to_string(&file).ok().filter(|text| text.ends_with('\n')).map(drop)
        });
        tokio::select! {
            _ = answer(&mut command) => panic!("it waits for ever"),
            () = begun => {}
        }
        gone(file).await;
    }

    #[test]
    fn nobody_learns_who_asked() {
        let text = "fatal: 'https://u:p@h/x' and ssh://git@h/y or https://h/@a";
        assert_eq!(without_users(text), "fatal: 'https://***@h/x' and ssh://***@h/y or https://h/@a");
        let access =
            Access { configuration: vec![], ssh: String::new(), telltales: vec!["s3cret".into()], dir: None };
        assert_eq!(cleaned("fatal:\n\x1b[31m s3cret\u{202e}", &access), "fatal: \\x1b[31m ***\u{fffd}");
    }
}
