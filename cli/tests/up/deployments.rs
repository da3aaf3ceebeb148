//! What was deployed, and whether it stands as it was deployed, on the command line.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use super::{Home, code, until};

fn git(dir: &Path, arguments: &[&str]) {
    let identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"];
    let done = Command::new("git").current_dir(dir).args(identity).args(arguments).output().unwrap();
    assert!(done.status.success(), "{done:?}");
}

#[test]
fn what_was_edited_by_hand_is_listed() {
    let home = Home::new();
    let (repo, place) = (home.0.path().join("repo"), home.0.path().join("srv"));
    fs::set_permissions(home.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(&repo).unwrap();
    fs::write(repo.join("file"), "one").unwrap();
    git(&repo, &["init", "-q", "-b", "main"]);
    git(&repo, &["add", "-A"]);
    git(&repo, &["commit", "-q", "-m", "one"]);
    let policy = home.0.path().join("policy.toml");
    fs::write(&policy, format!("deploy_roots = [{place:?}]\n")).unwrap();
    let mut command = home.signet();
    command.env("SIGNET_GIT_PROTOCOLS", "file");
    let up = Home::up_as(command, "127.0.0.1:0", &["--policy", policy.to_str().unwrap()]);
    let url = format!("file://{}", repo.display());
    let deploy = |name: &str| {
        let path = place.join(name);
        let args = ["deploy", &url, "--to", "box", "--path", path.to_str().unwrap(), "--branch", "main"];
        let (exit, said, why) = code(&up.signet(&home, &args));
        assert_eq!(exit, 0, "{said} {why}");
    };
    deploy("app");
    let listed =
        |args: &[&str]| up.json(&home, &[&["deployments"], args].concat()).as_array().unwrap().clone();
    until("the path to be told of", || (listed(&[]).len() == 1).then_some(()));
    assert!(listed(&["--drifted"]).is_empty());
    fs::write(place.join("app/file"), "by hand").unwrap();
    // An agent looks at all paths after each deployment.
    deploy("other");
    let found = until("the edit to be seen", || listed(&["--drifted"]).pop());
    assert_eq!((&found["hostname"], &found["edited"]), (&"box".into(), &true.into()));
    let (exit, table, _) = code(&up.signet(&home, &["deployments", "--drifted"]));
    assert_eq!(exit, 0);
    assert!(table.contains("edited") && table.contains(place.join("app").to_str().unwrap()), "{table}");
}
