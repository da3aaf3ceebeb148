//! Programs, arguments, directories, input; and what cannot be started.

use std::path::PathBuf;

use signet_common::messages::{Outcome, Rejection};

use crate::support::{argv, run, runner, shell};

#[tokio::test]
async fn exit_codes_and_signals() {
    let (runner, _directory) = runner();
    for (text, outcome, exit_code, signal) in [
        ("true", Outcome::Succeeded, Some(0), None),
        ("exit 7", Outcome::Failed, Some(7), None),
        ("exit 255", Outcome::Failed, Some(255), None),
        ("kill -9 $$", Outcome::Failed, None, Some(9)),
        ("kill -TERM $$", Outcome::Failed, None, Some(15)),
        ("kill -RTMIN $$", Outcome::Failed, None, Some(34)),
    ] {
        let result = run(&runner, shell(text)).await.unwrap().result;
        assert_eq!((result.outcome, result.exit_code, result.signal), (outcome, exit_code, signal), "{text}");
        assert_eq!((result.reason, result.killed), (None, 0), "{text}");
    }
}

#[tokio::test]
async fn arguments_reach_the_program_without_a_shell() {
    let (runner, _directory) = runner();
    let done = run(&runner, argv(&["printf", "%s|", "$HOME", "a b", ""])).await.unwrap();
    assert_eq!(done.text(), "$HOME|a b||");
}

#[tokio::test]
async fn the_commands_own_path_finds_the_program() {
    use std::os::unix::fs::PermissionsExt;
    let (runner, directory) = runner();
    let script = directory.path().join("own-program");
    std::fs::write(&script, "#!/bin/sh\necho found\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut spec = argv(&["own-program"]);
    assert!(run(&runner, spec.clone()).await.is_err());
    spec.env.insert("PATH".into(), format!("{}:/usr/bin:/bin", directory.path().display()));
    assert_eq!(run(&runner, spec).await.unwrap().text(), "found");
}

#[tokio::test]
async fn a_working_directory_is_entered() {
    let (runner, directory) = runner();
    let mut spec = shell("pwd");
    spec.cwd = Some(directory.path().canonicalize().unwrap());
    let expected = spec.cwd.clone().unwrap();
    assert_eq!(run(&runner, spec).await.unwrap().text(), expected.to_str().unwrap());
}

#[tokio::test]
async fn standard_input_is_read_whole_or_not_at_all() {
    let (runner, _directory) = runner();
    let text = "0123456789abcdef".repeat(65_536);
    let with = |program: &str| {
        let mut spec = shell(program);
        spec.stdin = Some(text.clone());
        spec
    };
    assert_eq!(run(&runner, with("cat")).await.unwrap().stdout, text.as_bytes());
    assert_eq!(run(&runner, with("cat /dev/stdin | wc -c")).await.unwrap().text(), "1048576");
    assert_eq!(run(&runner, with("true")).await.unwrap().result.outcome, Outcome::Succeeded);
    assert_eq!(run(&runner, with("read line; wc -c")).await.unwrap().text(), "0");
    assert_eq!(run(&runner, shell("cat")).await.unwrap().stdout, b"");
}

#[tokio::test]
async fn a_command_has_default_signals_and_no_other_descriptor() {
    let (runner, _directory) = runner();
    let done =
        run(&runner, shell("grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status; ls /proc/self/fd | wc -w")).await;
    let done = done.unwrap();
    let lines: Vec<&str> = done.text().lines().collect();
    for line in &lines[..2] {
        let mask = u64::from_str_radix(line.split('\t').nth(1).unwrap(), 16).unwrap();
        // 32 and 33 belong to the C library, which lets nobody set them.
        assert_eq!(mask & !0x1_8000_0000, 0, "{lines:?}");
    }
    // The three standard ones, and the directory that ls reads.
    assert_eq!(lines.last(), Some(&"4"));
}

#[tokio::test]
async fn what_cannot_be_started_is_said_in_a_sentence() {
    let (runner, directory) = runner();
    let file = directory.path().join("file");
    std::fs::write(&file, "no program").unwrap();
    let nowhere = directory.path().join("nowhere");
    let in_directory = |cwd: PathBuf| {
        let mut spec = shell("true");
        spec.cwd = Some(cwd);
        spec
    };
    let as_user = |user: &str| {
        let mut spec = shell("true");
        spec.user = Some(user.to_owned());
        spec
    };
    let long = "x".repeat(131_000);
    let with_env = |name: &str| {
        let mut spec = shell("true");
        spec.env.insert(name.to_owned(), "value".to_owned());
        spec
    };
    for (spec, expected) in [
        (argv(&["no-such-program-here"]), "there is no program no-such-program-here on this host"),
        (argv(&[nowhere.to_str().unwrap()]), "there is no program"),
        (argv(&[file.to_str().unwrap()]), "may not execute"),
        (argv(&[&long]), "cannot be executed"),
        (argv(&[""]), "there is nothing to execute"),
        (argv(&[]), "there is nothing to execute"),
        (shell(""), "there is nothing to execute"),
        (argv(&[&["true"], vec![long.as_str(); 40].as_slice()].concat()), "too long for this host"),
        (shell(&"x".repeat(131_072)), "use stdin"),
        (shell("a\0b"), "a zero byte"),
        (in_directory(nowhere.clone()), "there is no directory"),
        (in_directory(file.clone()), "is not a directory"),
        (in_directory("relative".into()), "is not absolute"),
        (as_user("no-such-user"), "there is no user no-such-user on this host"),
        (with_env("a=b"), "environment variable"),
        (with_env(""), "environment variable"),
    ] {
        let jti = spec.jti.clone();
        let refused = run(&runner, spec).await.unwrap_err();
        assert_eq!(refused.reason, Rejection::Exec);
        assert!(refused.detail.contains(expected), "{:?} has {expected:?}", refused.detail);
        assert_eq!(crate::support::alive(&jti), Vec::<i32>::new());
    }
}

#[tokio::test]
async fn the_longest_text_that_linux_takes_is_run() {
    let (runner, _directory) = runner();
    let text = format!("echo yes #{}", "x".repeat(131_071 - 10));
    assert_eq!(text.len(), 131_071);
    assert_eq!(run(&runner, shell(&text)).await.unwrap().text(), "yes");
}

#[tokio::test]
async fn a_launcher_that_is_none_is_no_riddle() {
    let directory = tempfile::tempdir().unwrap();
    if crate::support::in_cgroups() {
        return;
    }
    for (launcher, expected) in [("/no/launcher", "no launcher"), ("/bin/false", "the launcher ended before")]
    {
        let runner = crate::support::runner_with(directory.path(), launcher.into());
        let refused = run(&runner, shell("true")).await.unwrap_err();
        assert!(refused.detail.contains(expected), "{}", refused.detail);
    }
}

#[test]
fn detached_needs_systemd() {
    let test = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (runner, _directory) = runner();
            let mut spec = shell("true");
            spec.detached = true;
            let refused = run(&runner, spec).await.unwrap_err();
            let expected = (Rejection::Exec, "no systemd on this host");
            assert_eq!((refused.reason, refused.detail.as_str()), expected);
        });
    };
    // A host that has it shows none to this test.
    match std::path::Path::new("/run/systemd") {
        systemd if systemd.exists() => signet_testkit::on_a_disk_of(4_096, systemd, test),
        _ => test(),
    }
}
