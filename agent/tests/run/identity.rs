//! Users, groups, environments. As root, because only root can become another.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use signet_agent::run::Spec;

use crate::support::{argv, in_cgroups, run, runner, runner_with, shell};

fn as_nobody(spec: Spec) -> Spec {
    Spec { user: Some("nobody".into()), ..spec }
}

/// A test of nothing would be no test.
fn need_root() {
    assert!(nix::unistd::getuid().is_root(), "only root can become another user: run the tests as root");
}

#[tokio::test]
async fn another_user_is_become_with_its_own_groups_and_home() {
    need_root();
    let (runner, _directory) = runner();
    let text = "id -un; id -ru; id -G; pwd; echo $HOME $USER $LOGNAME $SHELL; echo x > /dev/stdout; umask";
    let done = run(&runner, as_nobody(shell(text))).await.unwrap();
    let lines: Vec<&str> = done.text().lines().collect();
    // The home of nobody does not exist.
    assert_eq!(lines[..4], ["nobody", "65534", "65534", "/"]);
    assert_eq!(lines[4], "/nonexistent nobody nobody /usr/sbin/nologin");
    assert_eq!(lines[5..], ["x", "0022"]);
}

#[tokio::test]
async fn another_user_may_do_only_what_it_may() {
    need_root();
    let (runner, directory) = runner();
    let private = directory.path().join("private");
    fs::create_dir(&private).unwrap();
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
    let mut spec = as_nobody(shell("true"));
    spec.cwd = Some(private.clone());
    let refused = run(&runner, spec).await.unwrap_err();
    assert_eq!(refused.detail, format!("nobody may not enter {}", private.display()));
    let done = run(&runner, as_nobody(shell("cat /etc/shadow; kill -9 $PPID; exit 5"))).await.unwrap();
    assert_eq!(done.result.exit_code, Some(5));
    assert_eq!(done.stdout, b"");
}

#[tokio::test]
async fn another_users_tree_is_ended() {
    need_root();
    let (runner, _directory) = runner();
    let text = "setsid sleep 1000 >/dev/null 2>&1 </dev/null & exit 0";
    assert_eq!(run(&runner, as_nobody(shell(text))).await.unwrap().result.killed, 1);
}

#[tokio::test]
async fn the_environment_is_clean_and_the_own_one_comes_on_top() {
    let (runner, _directory) = runner();
    let mut spec = argv(&["env"]);
    spec.env.insert("GREETING".into(), "hello\nworld".into());
    spec.env.insert("SHELL".into(), "/bin/own".into());
    spec.env.insert("SIGNET_JTI".into(), "forged".into());
    let jti = spec.jti.to_string();
    let done = run(&runner, spec).await.unwrap();
    let names: BTreeSet<&str> =
        done.text().lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    let expected = ["GREETING", "HOME", "LOGNAME", "PATH", "SHELL", "SIGNET_JTI", "USER"];
    assert_eq!(names, BTreeSet::from(expected));
    assert!(done.text().contains("GREETING=hello\nworld\n"));
    assert!(done.text().contains("SHELL=/bin/own\n"));
    assert!(done.text().contains(&format!("SIGNET_JTI={jti}")));
}

#[tokio::test]
async fn an_agent_that_is_not_root_is_itself_and_nobody_else() {
    need_root();
    if in_cgroups() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // The launcher decides, so it alone is made another user here.
    let binary = directory.path().join("signet-agent");
    fs::copy(env!("CARGO_BIN_EXE_signet-agent"), &binary).unwrap();
    let launcher = directory.path().join("launcher");
    let script = format!(
        "#!/bin/sh\nexec setpriv --reuid=nobody --regid=nogroup --clear-groups {} \"$@\"\n",
        binary.display()
    );
    fs::write(&launcher, script).unwrap();
    fs::set_permissions(&launcher, fs::Permissions::from_mode(0o755)).unwrap();
    let runner = runner_with(&directory.path().join("data"), launcher);
    assert_eq!(run(&runner, shell("id -un")).await.unwrap().text(), "nobody");
    assert_eq!(run(&runner, as_nobody(shell("id -un"))).await.unwrap().text(), "nobody");
    let mut spec = shell("true");
    spec.user = Some("root".into());
    let refused = run(&runner, spec).await.unwrap_err();
    assert_eq!(refused.detail, "the agent may not become root: it runs as nobody, not as root");
}
