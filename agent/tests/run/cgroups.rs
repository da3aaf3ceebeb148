//! Everything again with cgroups: in a mount namespace of its own, where cgroup v2 can be mounted whatever the host has.

use std::process::Command;

use signet_common::messages::Outcome;

use crate::support::{IN_CGROUPS, in_cgroups, run, runner, shell};

/// Goes into a cgroup like that of a service, runs the tests, and removes it.
const SCRIPT: &str = r#"
set -e
mount -t cgroup2 cgroup2 "$1"
mkdir "$1/signet-test-$$"
echo $$ > "$1/signet-test-$$/cgroup.procs"
set +e
"$2" --test-threads=8
code=$?
echo $$ > "$1/cgroup.procs"
find "$1/signet-test-$$" -depth -type d -exec rmdir {} +
exit $code
"#;

#[test]
fn everything_again() {
    if in_cgroups() {
        return;
    }
    let mount_point = tempfile::tempdir().unwrap();
    let probe = Command::new("unshare")
        .args(["-m", "mount", "-t", "cgroup2", "cgroup2"])
        .arg(mount_point.path())
        .output()
        .unwrap();
    assert!(probe.status.success(), "cgroup v2 can't be mounted: {}", String::from_utf8_lossy(&probe.stderr));
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", SCRIPT, "sh"])
        .arg(mount_point.path())
        .arg(std::env::current_exe().unwrap())
        .env(IN_CGROUPS, "1")
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{stdout}\n{stderr}");
    assert!(output.status.success());
    assert!(stdout.contains("a_command_is_in_a_cgroup_of_its_own ... ok"));
}

#[tokio::test]
async fn a_command_is_in_a_cgroup_of_its_own() {
    if !in_cgroups() {
        return;
    }
    let (runner, _directory) = runner();
    let spec = shell("cat /proc/self/cgroup");
    let jti = spec.jti.clone();
    let done = run(&runner, spec).await.unwrap();
    let line = done.text().lines().find(|line| line.starts_with("0::")).unwrap().to_owned();
    assert!(line.contains("/signet-test-") && line.ends_with(jti.as_str()), "{line}");
}

#[tokio::test]
async fn cgroups_that_the_command_made_go_with_it() {
    if !in_cgroups() {
        return;
    }
    let (runner, _directory) = runner();
    let text = "own=$(sed -n s/^0:://p /proc/self/cgroup); mnt=$(awk '$3==\"cgroup2\" {print $2}' /proc/mounts | tail -1)
        mkdir -p $mnt/$own/a/b && echo $mnt/$own
        sh -c \"echo \\$\\$ > $mnt/$own/a/b/cgroup.procs; exec sleep 1000 >/dev/null 2>&1\" &
        until grep -q . $mnt/$own/a/b/cgroup.procs; do sleep 0.02; done";
    let done = run(&runner, shell(text)).await.unwrap();
    assert_eq!((done.result.outcome, done.result.killed), (Outcome::Succeeded, 1), "{done:?}");
    assert!(!std::path::Path::new(done.text()).exists());
}
