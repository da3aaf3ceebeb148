//! Releases and the switch between them.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::world::{World, git};

/// Hooks that note where they ran.
fn releases(world: &World, change: Value) -> Value {
    let log = world.dir.path().join("hooks");
    let note = |what: &str| format!("echo {what} $(cat version) $SIGNET_COMMIT >> {}", log.display());
    let mut how = json!({ "keep": 2, "build": [note("build")], "activate": [note("activate")] });
    how.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    json!({ "strategy": { "releases": how } })
}

fn current(world: &World) -> PathBuf {
    world.path.join("current").canonicalize().unwrap()
}

fn names(world: &World) -> Vec<String> {
    let entries = fs::read_dir(world.path.join("releases")).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn each_release_is_built_switched_to_and_kept_for_a_while() {
    let world = World::new();
    let first = world.head();
    let done = world.deploy(releases(&world, json!({}))).await.succeeded();
    assert_eq!((done.before, done.changed), (None, true));
    assert_eq!(current(&world).file_name().unwrap().to_str(), done.release.as_deref());
    assert_eq!(world.read("current/version"), "one");
    assert!(!world.path.join("current/.git").exists());

    let again = world.deploy(releases(&world, json!({}))).await.succeeded();
    assert_eq!((again.changed, again.release), (false, done.release));

    let mut commits = vec![first];
    for version in ["two", "three", "four"] {
        commits.push(world.commit(version));
        let done = world.deploy(releases(&world, json!({}))).await.succeeded();
        assert_eq!(done.commit.unwrap().as_str(), commits[commits.len() - 1]);
        assert_eq!(done.before.unwrap().as_str(), commits[commits.len() - 2]);
        assert_eq!(world.read("current/version"), version);
    }
    assert_eq!(names(&world).len(), 2, "{:?}", names(&world));
    let hooks = fs::read_to_string(world.dir.path().join("hooks")).unwrap();
    assert!(
        hooks.starts_with(&format!("build one {}\nactivate one {}\n", commits[0], commits[0])),
        "{hooks}"
    );
    assert_eq!(hooks.lines().count(), 8);

    // A release that is still there is taken again, and one that is gone is made again.
    let back = |commit: &str| {
        let mut change = releases(&world, json!({}));
        (change["commit"], change["rollback"]) = (json!(commit), json!(true));
        change
    };
    let done = world.deploy(back(&commits[2])).await.succeeded();
    assert_eq!((done.changed, world.read("current/version").as_str()), (true, "three"));
    let hooks = fs::read_to_string(world.dir.path().join("hooks")).unwrap();
    assert_eq!(hooks.lines().count(), 9, "only activated: {hooks}");
    world.deploy(back(&commits[0])).await.succeeded();
    assert_eq!(world.read("current/version"), "one");
}

#[tokio::test]
async fn shared_paths_are_linked_and_kept() {
    let world = World::new();
    let how = || releases(&world, json!({ "shared": ["log", "config/app.conf", "var/lib/data"] }));
    world.deploy(how()).await.succeeded();
    fs::write(world.path.join("current/log/app.log"), "line").unwrap();
    fs::write(world.path.join("current/config/app.conf"), "by hand").unwrap();
    world.commit("two");
    world.deploy(how()).await.succeeded();
    assert_eq!(world.read("current/version"), "two");
    assert_eq!(world.read("current/log/app.log"), "line");
    assert_eq!(world.read("current/config/app.conf"), "by hand");
    assert!(world.path.join("current/var/lib/data").is_dir());
}

#[tokio::test]
async fn what_does_not_work_is_taken_back() {
    let world = World::new();
    let first = world.head();
    let good = world.deploy(releases(&world, json!({}))).await.succeeded().release;
    world.commit("two");
    let build = json!({ "build": ["exit 3"] });
    let done = world.deploy(releases(&world, build)).await.failed("build hook 1 failed: exit code 3");
    assert_eq!((done.rolled_back_to, done.changed), (None, false));
    assert_eq!(names(&world).len(), 1, "nothing is left of it");

    let activate = json!({ "activate": ["test $(cat version) = one"] });
    let done = world.deploy(releases(&world, activate)).await.failed("activate hook 1 failed: exit code 1");
    assert_eq!((done.rolled_back_to, done.commit.unwrap().to_string()), (good.clone(), first.clone()));
    assert_eq!(world.read("current/version"), "one");

    let health = |command: &str| {
        let probe = json!({ "command": command });
        json!({ "health": { "probe": probe, "timeout": 1, "attempts": 2 } })
    };
    for (command, why) in [("exit 9", "exit code 9"), ("sleep 600", "no answer within 1 s")] {
        let done = world.deploy(releases(&world, health(command))).await.failed(why);
        assert_eq!((done.rolled_back_to, done.changed), (good.clone(), false));
        assert_eq!(world.read("current/version"), "one");
    }
    let hooks = fs::read_to_string(world.dir.path().join("hooks")).unwrap();
    assert!(hooks.ends_with(&format!("activate one {first}\n")), "the old one is activated again: {hooks}");
    world.deploy(releases(&world, health("test $(cat version) = two"))).await.succeeded();
    assert_eq!(world.read("current/version"), "two");
}

#[tokio::test]
async fn a_health_check_over_http() {
    use std::io::{Read as _, Write as _};
    let world = World::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/health", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for (stream, status) in listener.incoming().zip([503, 302, 200]) {
            let mut stream = stream.unwrap();
            assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
            let answer = format!(
                "HTTP/1.1 {status} X\r\nlocation: /x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let probe = json!({ "http": { "url": url } });
    let how = json!({ "health": { "probe": probe, "timeout": 5, "attempts": 3 } });
    let done = world.deploy(releases(&world, how)).await;
    assert!(
        done.log.contains("status 503 instead of 200") && done.log.contains("status 302"),
        "{}",
        done.log
    );
    done.succeeded();
}

#[tokio::test]
async fn its_time_limit_takes_back_what_was_not_proven() {
    let world = World::new();
    let good = world.deploy(releases(&world, json!({}))).await.succeeded().release;
    world.commit("two");
    let mut change = releases(&world, json!({ "activate": ["sleep 600"] }));
    change["timeout"] = json!(3);
    let done = world.deploy(change).await;
    assert_eq!(done.result.outcome, signet_common::messages::Outcome::TimedOut, "{}", done.log);
    let deployed = done.deployed.unwrap();
    assert_eq!((&deployed.rolled_back_to, &deployed.release), (&good, &good));
    assert_eq!((deployed.commit, deployed.changed), (deployed.before, false));
    assert_eq!(world.read("current/version"), "one");
    // Also when it comes while the hooks of the release before run again.
    let mut change = releases(&world, json!({ "activate": ["test $(cat version) = one", "sleep 600"] }));
    change["timeout"] = json!(3);
    let done = world.deploy(change).await;
    assert_eq!(done.result.outcome, signet_common::messages::Outcome::TimedOut, "{}", done.log);
    let deployed = done.deployed.unwrap();
    assert_eq!((&deployed.rolled_back_to, &deployed.release), (&good, &good));
    assert_eq!((deployed.commit, deployed.changed), (deployed.before, false));
    assert_eq!(world.read("current/version"), "one");
    world.deploy(releases(&world, json!({}))).await.succeeded();
    assert_eq!(world.read("current/version"), "two");
}

#[tokio::test]
async fn a_foreign_directory_is_named() {
    let world = World::new();
    fs::create_dir_all(world.path.join("shared")).unwrap();
    fs::write(world.path.join("precious"), "mine").unwrap();
    world.deploy(releases(&world, json!({}))).await.failed("but precious");
    fs::remove_file(world.path.join("precious")).unwrap();
    world.deploy(releases(&world, json!({}))).await.succeeded();
    fs::remove_file(world.path.join("current")).unwrap();
    fs::create_dir(world.path.join("current")).unwrap();
    world.deploy(releases(&world, json!({}))).await.failed("current is no symbolic link");
}

#[tokio::test]
async fn what_can_not_be_removed_is_told_and_fails_nothing() {
    let world = World::new();
    let srv = world.dir.path().join("srv");
    fs::create_dir_all(&srv).unwrap();
    chown(&srv, Some(65534), Some(65534)).unwrap();
    fs::write(world.home.join(".gitconfig"), "[safe]\n\tdirectory = *\n").unwrap();
    let deploy =
        async |how: Value| world.deploy(json!({ "user": "nobody", "strategy": { "releases": how } })).await;
    deploy(json!({ "keep": 1 })).await.succeeded();
    // As a container may leave it.
    chown(current(&world).join("config"), Some(0), Some(0)).unwrap();
    world.commit("two");
    let done = deploy(json!({ "keep": 1 })).await;
    assert!(done.log.contains("can't be removed: "), "{}", done.log);
    done.succeeded();
    world.commit("three");
    let stuck = json!({ "build": ["mkdir -p a/b && chmod 0 a && exit 3"] });
    deploy(stuck).await.failed("build hook 1 failed: exit code 3");
    assert_eq!(world.read("current/version"), "two");
    deploy(json!({})).await.succeeded();
    assert_eq!(world.read("current/version"), "three");
}

#[tokio::test]
async fn the_link_goes_back_to_where_it_led() {
    let world = World::new();
    let first = world.head();
    world.deploy(releases(&world, json!({}))).await.succeeded();
    let link = world.path.join("current");
    let elsewhere = current(&world);
    fs::remove_file(&link).unwrap();
    symlink(&elsewhere, &link).unwrap();
    world.commit("two");
    world.deploy(releases(&world, json!({ "activate": ["exit 1"] }))).await.failed("exit code 1");
    assert_eq!(fs::read_link(&link).unwrap(), elsewhere);

    // The only release, taken again: nothing is better than it.
    let mut again = releases(&world, json!({ "activate": ["exit 1"] }));
    again.as_object_mut().unwrap().extend([
        ("commit".to_owned(), json!(first)),
        ("rollback".to_owned(), json!(true)),
        ("force".to_owned(), json!(true)),
    ]);
    let done = world.deploy(again).await.failed("exit code 1");
    assert_eq!((done.commit.unwrap().to_string(), done.changed), (first, false));
    assert_eq!(world.read("current/version"), "one");
}

#[tokio::test]
async fn a_hook_of_another_user_can_not_look_into_the_driver() {
    let world = World::new();
    let srv = world.dir.path().join("srv");
    fs::create_dir_all(&srv).unwrap();
    chown(&srv, Some(65534), Some(65534)).unwrap();
    fs::write(world.home.join(".gitconfig"), "[safe]\n\tdirectory = *\n").unwrap();
    // One's own processes are not that shy.
    let look = "sleep 60 & head -c 1 /proc/$!/environ > /dev/null; own=$?; kill $!
        head -c 1 /proc/$PPID/environ || head -c 1 /proc/$PPID/mem || ls /proc/$PPID/fd || exit $own";
    let how = json!({ "releases": { "build": [look], "activate": [look] } });
    world.deploy(json!({ "user": "nobody", "strategy": how })).await.succeeded();
    // As root nothing is hidden, and a look that finds something fails.
    let seen = json!({ "releases": { "build": ["! head -c 1 /proc/$PPID/environ"] } });
    fs::remove_dir_all(&world.path).unwrap();
    chown(&srv, Some(0), Some(0)).unwrap();
    world.deploy(json!({ "strategy": seen })).await.failed("build hook 1 failed");
}

#[tokio::test]
async fn a_mirror_of_another_repository_is_not_mixed_with_this_one() {
    let world = World::new();
    world.deploy(releases(&world, json!({}))).await.succeeded();
    let other = world.dir.path().join("other");
    git(
        world.dir.path(),
        &["clone", "-q", "--bare", world.origin.to_str().unwrap(), other.to_str().unwrap()],
    );
    let from_other = |change: Value| {
        let mut all = releases(&world, json!({}));
        all["repository"] = format!("file://{}", other.display()).into();
        all.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        all
    };
    let why = format!("repo.git is a clone of file://{}", world.origin.display());
    world.deploy(from_other(json!({}))).await.failed(&why);
    world.commit("two");
    world.deploy(from_other(json!({}))).await.failed(&why);
    world.deploy(from_other(json!({ "phase": "preflight" }))).await.failed(&why);
    // Also `force` makes it no mirror of the other before that is approved.
    let forced = json!({ "phase": "preflight", "force": true });
    assert_eq!(world.deploy(from_other(forced)).await.succeeded().present, Some(false));
    world.deploy(from_other(json!({}))).await.failed(&why);
    assert_eq!(world.read("current/version"), "one");
    git(&other, &["fetch", "-q", world.origin.to_str().unwrap(), "+refs/heads/*:refs/heads/*"]);
    world.deploy(from_other(json!({ "force": true }))).await.succeeded();
    assert_eq!(world.read("current/version"), "two");
    assert!(!world.deploy(from_other(json!({}))).await.succeeded().changed);
    world
        .deploy(releases(&world, json!({})))
        .await
        .failed(&format!("is a clone of file://{}", other.display()));
}

#[tokio::test]
async fn a_repository_with_longer_ids() {
    let world = World::new();
    fs::remove_dir_all(world.origin.join(".git")).unwrap();
    git(&world.origin, &["init", "-q", "--object-format=sha256"]);
    for version in ["one", "two"] {
        assert_eq!(world.commit(version).len(), 64);
        world.deploy(releases(&world, json!({ "build": [], "activate": [] }))).await.succeeded();
        assert_eq!(world.read("current/version"), version);
    }
}

#[tokio::test]
async fn a_branch_that_is_gone_stands_in_no_others_way() {
    let world = World::new();
    let tree = world.dir.path().join("srv/tree");
    for names in [["old", "old/new"], ["deep/er", "deep"]] {
        let mut gone = None;
        for name in names {
            git(&world.origin, &["checkout", "-q", "--detach"]);
            if let Some(gone) = gone.replace(name) {
                git(&world.origin, &["branch", "-q", "-D", gone]);
            }
            git(&world.origin, &["checkout", "-q", "-b", name]);
            world.commit(name);
            for mut how in [releases(&world, json!({})), json!({ "path": tree })] {
                how["reference"] = name.into();
                world.deploy(how).await.succeeded();
            }
            assert_eq!(world.read("current/version"), name);
            assert_eq!(fs::read_to_string(tree.join("version")).unwrap(), name);
        }
    }
}
