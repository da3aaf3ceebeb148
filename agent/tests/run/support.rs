//! What the tests share.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use signet_agent::run::{CannotStart, CgroupChoice, Program, RunEvent, Runner, RunnerConfig, Running, Spec};
use signet_common::Jti;
use signet_common::messages::{CommandResult, Isolation, Stream};
use tempfile::TempDir;

/// Set in the run that uses cgroups.
pub(crate) const IN_CGROUPS: &str = "SIGNET_TEST_IN_CGROUPS";

pub(crate) fn in_cgroups() -> bool {
    std::env::var_os(IN_CGROUPS).is_some()
}

pub(crate) fn runner_at(data_dir: &Path) -> Runner {
    runner_with(data_dir, PathBuf::from(env!("CARGO_BIN_EXE_signet-agent")))
}

pub(crate) fn runner_with(data_dir: &Path, launcher: PathBuf) -> Runner {
    let cgroup = if in_cgroups() { CgroupChoice::Auto } else { CgroupChoice::Never };
    let runner = Runner::new(RunnerConfig { data_dir: data_dir.to_owned(), launcher, cgroup }).unwrap();
    let expected = if in_cgroups() { Isolation::Cgroup } else { Isolation::ProcessGroup };
    assert_eq!(runner.isolation(), expected);
    runner
}

/// A runner, and a directory that everybody may write to.
pub(crate) fn runner() -> (Runner, TempDir) {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    (runner_at(&directory.path().join("data")), directory)
}

pub(crate) fn argv(argv: &[&str]) -> Spec {
    Spec {
        jti: Jti::generate(),
        program: Program::Argv(argv.iter().map(|&argument| argument.to_owned()).collect()),
        env: BTreeMap::new(),
        cwd: None,
        stdin: None,
        user: None,
        timeout: Duration::from_secs(60),
        output_limit: 1024 * 1024,
        detached: false,
    }
}

pub(crate) fn shell(text: &str) -> Spec {
    Spec { program: Program::Shell(text.to_owned()), ..argv(&[]) }
}

/// A finished command with its output put together.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) result: CommandResult,
    pub(crate) events: Vec<RunEvent>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Done {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap().trim_end()
    }
}

/// Follows a command to its end; pieces are in order, and only what the summary says is missing.
pub(crate) async fn finish(mut running: Running) -> Done {
    let (mut events, mut kept) = (Vec::new(), [Vec::new(), Vec::new()]);
    let mut next = [0; 2];
    let result = loop {
        let event = running.next().await;
        match &event {
            RunEvent::Finished(result) => break (**result).clone(),
            RunEvent::Count { .. } => {}
            RunEvent::Output { stream, offset, data } => {
                let which = usize::from(*stream == Stream::Stderr);
                assert!(*offset >= next[which], "{stream:?} in order");
                next[which] = offset + data.len() as u64;
                kept[which].extend_from_slice(data);
            }
        }
        events.push(event);
    };
    let [mut stdout, mut stderr] = kept;
    assert!(events.is_empty() || result.stdout.is_empty() && result.stderr.is_empty(), "recorded once");
    stdout.extend_from_slice(&result.stdout);
    stderr.extend_from_slice(&result.stderr);
    for (kept, summary) in [(&stdout, &result.stdout_summary), (&stderr, &result.stderr_summary)] {
        assert_eq!(kept.len() as u64 + summary.omitted_bytes, summary.bytes);
    }
    Done { result, events, stdout, stderr }
}

/// Runs a command to its end and sees that nothing of it is left.
pub(crate) async fn run(runner: &Runner, spec: Spec) -> Result<Done, CannotStart> {
    let jti = spec.jti.clone();
    let done = finish(runner.start(spec).await?).await;
    assert_eq!(alive(&jti), Vec::<i32>::new(), "nothing of it is left");
    Ok(done)
}

/// The living processes that have a command's id in their environment.
pub(crate) fn alive(jti: &Jti) -> Vec<i32> {
    let mark = format!("SIGNET_JTI={jti}");
    let pids =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
    })
    .collect()
}

/// Whether a process lives, by its recorded id.
pub(crate) fn lives(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.trim_start().starts_with('Z'))
}

/// Waits for a condition, for 20 s at most.
pub(crate) async fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    signet_testkit::eventually(Duration::from_secs(20), what, async || condition()).await
}

/// Waits until a file holds a whole line with a number.
pub(crate) async fn number_in(file: &Path) -> i32 {
    let read = || fs::read_to_string(file).ok().filter(|text| text.ends_with('\n'))?.trim().parse().ok();
    until("a number in a file", read).await
}
