//! What an operator is told, and what is left, when there is nothing to do or nothing came of it.

use std::fs;

use serde_json::{Value, json};
use signet_testkit::ssh::SshKey;

use crate::world::World;

fn releases(how: Value) -> Value {
    json!({ "strategy": { "releases": how } })
}

fn health(command: &str) -> Value {
    json!({ "probe": { "command": command }, "timeout": 5, "attempts": 1 })
}

#[tokio::test]
async fn where_the_commit_stands_its_health_is_asked_for_and_what_is_not_done_is_told() {
    let world = World::new();
    world.deploy(releases(json!({ "build": ["mkdir own"], "activate": ["true"] }))).await.succeeded();
    let commit = world.head();
    let how = |health: Value| {
        releases(json!({
            "build": ["exit 3"], "activate": ["exit 4"], "shared": ["own", "var/log"], "health": health,
        }))
    };
    let done = world.deploy(how(health("test -L var/log"))).await;
    let line = format!(
        "build and activate hooks are not run, and what the release has of its own at own is not shared: \
         {commit} stands here already (force makes a new release)\n"
    );
    assert!(done.log.contains(&line) && done.log.contains("healthy after 1 of 1"), "{}", done.log);
    assert!(!done.succeeded().changed);
    assert!(world.path.join("shared/var/log").is_dir() && world.path.join("current/own").is_dir());

    let name = world.path.join("current").canonicalize().unwrap();
    let why = "is not healthy after 1 attempt: exit code 9; nothing was taken back, because no release was switched";
    let done = world.deploy(how(health("exit 9"))).await.failed(why);
    assert_eq!((done.changed, done.rolled_back_to), (false, None));
    assert_eq!(done.commit.unwrap().as_str(), commit);
    assert_eq!(world.path.join("current").canonicalize().unwrap(), name);
    let done = world.deploy(releases(json!({}))).await;
    assert!(!done.log.contains("not run") && done.log.contains("already"), "{}", done.log);
}

#[tokio::test]
async fn a_release_that_was_changed_by_hand_does_not_stand() {
    let world = World::new();
    // What hooks change was not changed by hand.
    let change = "echo hook >> config/app.conf";
    let how = || releases(json!({ "build": [change], "activate": [change] }));
    world.deploy(how()).await.succeeded();
    assert!(!world.deploy(how()).await.succeeded().changed);
    fs::write(world.path.join("current/untracked"), "the application's own").unwrap();
    assert!(!world.deploy(how()).await.succeeded().changed);
    fs::write(world.path.join("current/version"), "edited").unwrap();
    let done = world.deploy(how()).await.failed("was changed by hand: version (force makes a new release)");
    assert!(!done.changed);
    assert_eq!(world.read("current/version"), "edited");
    let mut forced = how();
    forced["force"] = json!(true);
    assert!(world.deploy(forced).await.succeeded().changed);
    assert_eq!(world.read("current/version"), "one");
}

#[tokio::test]
async fn the_reason_tells_what_became_of_going_back() {
    let world = World::new();
    let activate = |hook: &str| releases(json!({ "activate": [hook] }));
    let done = world.deploy(activate("exit 3")).await;
    assert!(!done.log.contains("of this job again"), "{}", done.log);
    done.failed("exit code 3; nothing was there before, so `current` was removed");
    assert!(world.path.join("current").symlink_metadata().is_err());

    let first = world.head();
    let name = world.deploy(releases(json!({}))).await.succeeded().release.unwrap();
    world.commit("two");
    let done = world.deploy(activate("test $(cat version) = one")).await;
    let line = format!("running the activate hooks of this job again, in {name}\n");
    assert!(done.log.contains(&line), "{}", done.log);
    done.failed(&format!("activate hook 1 failed: exit code 1; back on {name} {first}"));
    let why =
        format!("hook 1 failed: exit code 7; back on {name}, but there activate hook 1 failed: exit code 7");
    world.deploy(activate("exit 7")).await.failed(&why);
}

#[tokio::test]
async fn what_hooks_change_in_an_old_release_was_not_changed_by_hand() {
    let world = World::new();
    let activate = |hook: &str| releases(json!({ "activate": [hook] }));
    let first = world.head();
    world.deploy(activate("echo once >> config/app.conf")).await.succeeded();
    world.commit("two");
    world.deploy(activate("echo again >> config/app.conf; exit 3")).await.failed("back on ");
    let mut old = releases(json!({}));
    old["commit"] = json!(first);
    assert!(!world.deploy(old.clone()).await.succeeded().changed);
    // But what somebody changed before stays theirs.
    fs::write(world.path.join("current/version"), "edited").unwrap();
    world.deploy(activate("echo more >> config/app.conf; exit 3")).await.failed("back on ");
    world.deploy(old).await.failed("was changed by hand: config/app.conf, version");
}

#[tokio::test]
async fn nothing_is_left_where_nothing_came_of_it() {
    let world = World::new();
    let srv = world.dir.path().join("srv");
    let unknown = |strategy: &Value, path: &str| json!({ "strategy": strategy, "path": srv.join(path), "commit": "d".repeat(40) });
    for strategy in [json!("in_place"), json!({ "releases": {} })] {
        world.deploy(unknown(&strategy, "deep/app")).await.failed("has no commit dddd");
        assert!(!srv.exists(), "{strategy}");
        // What was there before stays, also when it is empty.
        fs::create_dir_all(srv.join("there/app")).unwrap();
        for path in ["deep/app", "there/app"] {
            world.deploy(unknown(&strategy, path)).await.failed("has no commit dddd");
        }
        assert!(srv.join("there/app").exists() && !srv.join("deep").exists(), "{strategy}");
        assert_eq!(fs::read_dir(srv.join("there/app")).unwrap().count(), 0, "{strategy}");
        fs::remove_dir_all(&srv).unwrap();
    }
    // What was fetched serves the next one.
    world.deploy(releases(json!({ "build": ["exit 3"] }))).await.failed("build hook 1 failed");
    assert!(world.path.join("repo.git/HEAD").exists());
    fs::create_dir_all(world.path.join("releases")).unwrap();
    let mut other = releases(json!({}));
    other["commit"] = json!("d".repeat(40));
    world.deploy(other).await.failed("has no commit dddd");
    assert!(world.path.join("repo.git/HEAD").exists());
}

#[tokio::test]
async fn what_git_says_of_what_is_no_fault_is_not_in_the_log() {
    let world = World::new();
    let key = SshKey::ed25519(world.dir.path(), "alice");
    let signers = format!("alice {}\n", key.public);
    let done = world.deploy(json!({ "allowed_signers": signers })).await;
    assert!(!done.log.contains("find remote ref"), "{}", done.log);
    done.failed("is not signed by an allowed signer");
    let missing = "d".repeat(40);
    for reference in [json!("main"), json!(missing)] {
        let done = world.deploy(json!({ "commit": missing, "reference": reference })).await;
        assert!(!done.log.contains("not our ref"), "{}", done.log);
        done.failed("has no commit dddd");
    }
    // Other complaints are.
    let gone = json!({ "repository": format!("file://{}-gone", world.origin.display()), "commit": missing });
    let done = world.deploy(gone).await;
    assert!(done.log.contains("does not appear to be a git repository"), "{}", done.log);
}

#[tokio::test]
async fn an_address_that_refuses_is_named_once_with_the_attempts() {
    let world = World::new();
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://bob:hunter2@{address}/health");
    let health = json!({ "probe": { "http": { "url": url } }, "timeout": 5, "attempts": 6, "pause": 0 });
    let done = world.deploy(releases(json!({ "health": health }))).await;
    let lines = done.log.lines().filter(|line| line.starts_with("health check ")).count();
    assert_eq!((lines, done.log.contains("hunter2")), (1, false), "{}", done.log);
    let why = format!(
        "is not healthy after 6 attempts: http://{address}/health says: Connection refused (os error 111); \
         nothing was there before"
    );
    done.failed(&why);
}

#[tokio::test]
async fn the_begin_of_a_commits_id_is_told_to_be_too_short() {
    let world = World::new();
    let resolve = |reference: &str| json!({ "phase": "resolve", "commit": null, "reference": reference });
    let short = &world.head()[..8];
    let why = format!("no branch or tag {short}; a commit needs its whole id");
    world.deploy(resolve(short)).await.failed(&why);
    let done = world.deploy(resolve("develop")).await;
    assert!(!done.fault.as_ref().unwrap().contains("whole id"), "{done:?}");
}
