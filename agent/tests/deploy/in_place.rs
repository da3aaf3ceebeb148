//! The path is the working tree.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};

use serde_json::{Value, json};
use signet_agent::run::RunEvent;

use crate::world::{World, finish, git};

#[tokio::test]
async fn the_first_time_the_next_time_and_when_nothing_is_new() {
    let world = World::new();
    let first = world.head();
    let done = world.deploy(json!({})).await.succeeded();
    assert_eq!((done.before, done.changed), (None, true));
    assert_eq!(done.commit.unwrap().as_str(), first);
    assert_eq!(world.read("version"), "one");
    assert_eq!(git(&world.path, &["rev-parse", "HEAD"]), first);
    assert_eq!(git(&world.path, &["status", "--porcelain"]), "");
    git(&world.path, &["fetch", "-q"]);

    let done = world.deploy(json!({})).await.succeeded();
    assert!(!done.changed, "{done:?}");

    let second = world.commit("two");
    let done = world.deploy(json!({})).await.succeeded();
    assert_eq!((done.before.unwrap().as_str(), done.commit.unwrap().as_str()), (&*first, &*second));
    assert_eq!((done.changed, world.read("version").as_str()), (true, "two"));

    // Exactly the pinned commit, whatever the branch leads to by now.
    let done = world.deploy(json!({ "commit": first })).await.succeeded();
    assert_eq!((done.changed, world.read("version").as_str()), (true, "one"));
}

#[tokio::test]
async fn branches_tags_and_ids_are_resolved_and_found() {
    let world = World::new();
    let main = world.head();
    git(&world.origin, &["checkout", "-q", "-b", "release/1.2"]);
    let branch = world.commit("branch");
    git(&world.origin, &["tag", "-a", "v1", "-m", "v1"]);
    git(&world.origin, &["checkout", "-q", "-b", "later"]);
    world.commit("later");
    git(&world.origin, &["checkout", "-q", "main"]);
    let resolve = async |reference: serde_json::Value| {
        let change = json!({ "phase": "resolve", "commit": null, "reference": reference });
        world.deploy(change).await
    };
    for (reference, commit) in [
        (json!("main"), &main),
        (json!("release/1.2"), &branch),
        (json!("v1"), &branch),
        (json!("refs/tags/v1"), &branch),
        (json!("refs/heads/main"), &main),
        (json!(main), &main),
        (json!(null), &main),
    ] {
        let done = resolve(reference.clone()).await.succeeded();
        assert_eq!(done.commit.unwrap().as_str(), commit, "{reference}");
        assert!(!world.path.exists(), "nothing changes");
    }
    resolve(json!("no-such-branch")).await.failed("no branch or tag no-such-branch");
    for reference in [json!("v1"), json!("release/1.2"), json!("later"), json!("main"), json!(branch)] {
        let change = json!({ "reference": reference, "commit": branch });
        world.deploy(change).await.succeeded();
        assert_eq!(world.read("version"), "branch", "{reference}");
        fs::remove_dir_all(&world.path).unwrap();
    }
    let missing = json!({ "commit": "d".repeat(40) });
    world.deploy(missing).await.failed("has no commit dddd");
    world.deploy(json!({})).await.succeeded();
}

#[tokio::test]
async fn what_is_there_is_named_and_kept_unless_forced() {
    let world = World::new();
    fs::create_dir_all(&world.path).unwrap();
    fs::write(world.path.join("precious"), "mine").unwrap();
    world.deploy(json!({})).await.failed("it holds precious");
    assert_eq!(world.read("precious"), "mine");
    assert!(!world.path.join(".git").exists());
    world.deploy(json!({ "force": true })).await.succeeded();
    assert_eq!((world.read("precious").as_str(), world.read("version").as_str()), ("mine", "one"));

    fs::write(world.path.join("version"), "edited").unwrap();
    let done = world.deploy(json!({})).await.failed("was changed by hand: version");
    assert!(!done.changed);
    assert_eq!(world.read("version"), "edited");
    let done = world.deploy(json!({ "force": true })).await.succeeded();
    assert_eq!((done.changed, world.read("version").as_str()), (true, "one"));

    // An untracked file is the application's own, until a commit wants its name.
    fs::write(world.origin.join("precious"), "theirs").unwrap();
    world.commit_all();
    world.deploy(json!({})).await.failed("precious");
    assert_eq!(world.read("precious"), "mine");
    world.deploy(json!({ "force": true })).await.succeeded();
    assert_eq!(world.read("precious"), "theirs");
}

#[tokio::test]
async fn a_clone_made_by_hand_is_taken_over_and_that_of_another_repository_is_not() {
    let world = World::new();
    fs::create_dir_all(world.path.parent().unwrap()).unwrap();
    let url = format!("file://{}", world.origin.display());
    git(world.dir.path(), &["clone", "-q", &url, world.path.to_str().unwrap()]);
    git(&world.path, &["remote", "set-url", "origin", "https://bob:hunter2@example.com/other"]);
    let done = world.deploy(json!({})).await;
    assert!(!done.log.contains("hunter2") && !done.fault.as_ref().unwrap().contains("hunter2"), "{done:?}");
    done.failed("is a clone of https://***@example.com/other");
    git(&world.path, &["remote", "set-url", "origin", &url]);
    assert!(!world.deploy(json!({})).await.succeeded().changed);
    fs::remove_dir_all(&world.path).unwrap();
    git(world.dir.path(), &["clone", "-q", &url, world.path.to_str().unwrap()]);
    git(&world.path, &["remote", "set-url", "origin", "https://example.com/other"]);
    world.deploy(json!({ "force": true })).await.succeeded();
    world.deploy(json!({})).await.succeeded();
    assert_eq!(git(&world.path, &["remote", "get-url", "origin"]), url);
}

#[tokio::test]
async fn a_preflight_fetches_and_changes_no_file() {
    let world = World::new();
    let preflight = async || world.deploy(json!({ "phase": "preflight" })).await.succeeded();
    assert_eq!(preflight().await.present, Some(false));
    assert!(!world.path.exists());
    world.deploy(json!({})).await.succeeded();
    let second = world.commit("two");
    assert_eq!(preflight().await.present, Some(true));
    assert_eq!(world.read("version"), "one");
    assert_eq!(git(&world.path, &["cat-file", "-t", &second]), "commit");
}

#[tokio::test]
async fn a_preflight_leaves_the_clone_of_another_repository_alone() {
    let world = World::new();
    world.deploy(json!({})).await.succeeded();
    git(&world.path, &["remote", "set-url", "origin", "https://example.com/other"]);
    fs::remove_file(world.path.join(".git/signet/remote")).unwrap();
    let refs = git(&world.path, &["for-each-ref"]);
    world.commit("two");
    let preflight = |force: bool| world.deploy(json!({ "phase": "preflight", "force": force }));
    preflight(false).await.failed("is a clone of https://example.com/other");
    assert_eq!(preflight(true).await.succeeded().present, Some(false));
    assert_eq!(git(&world.path, &["for-each-ref"]), refs);
    assert_eq!(git(&world.path, &["remote", "get-url", "origin"]), "https://example.com/other");
    world.deploy(json!({ "force": true })).await.succeeded();
    assert_eq!(preflight(false).await.succeeded().present, Some(true));
}

#[tokio::test]
async fn only_one_is_at_work_at_a_path() {
    let world = World::new();
    world.deploy(json!({})).await.succeeded();
    let lock = world.path.join(".git/signet/lock");
    let there = fs::metadata(&lock).unwrap();
    assert_eq!((there.permissions().mode() & 0o777, there.len()), (0o600, 0), "nobody else can hold it");
    fs::write(&lock, "job job-1 (message x)").unwrap();
    let held = fs::File::open(&lock).unwrap();
    let held = nix::fcntl::Flock::lock(held, nix::fcntl::FlockArg::LockExclusive).unwrap();
    world.deploy(json!({})).await.failed("is locked by job job-1 (message ");
    drop(held);
    world.deploy(json!({})).await.succeeded();
}

/// It changes nothing that anybody sees, so that it may come at its turn.
#[tokio::test]
async fn a_preflight_waits_for_who_is_at_work() {
    let world = World::new();
    let releases = json!({ "strategy": { "releases": {} } });
    for (strategy, lock) in [(json!({}), ".git/signet/lock"), (releases, "repo.git/signet/lock")] {
        let with = |change: Value| {
            let mut all = strategy.clone();
            all.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            all
        };
        world.deploy(with(json!({}))).await.succeeded();
        let lock = world.path.join(lock);
        fs::write(&lock, "job job-1 (message x)").unwrap();
        let file = fs::File::open(&lock).unwrap();
        let held = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive).unwrap();
        world.commit("two");
        let (mut running, report) = world.start(with(json!({ "phase": "preflight" }))).await;
        let mut said = String::new();
        while !said.contains("is locked by job job-1 (message x); waiting for it") {
            match running.next().await {
                RunEvent::Output { data, .. } => said.push_str(&String::from_utf8_lossy(&data)),
                RunEvent::Count { .. } => {}
                RunEvent::Finished(result) => panic!("it did not wait: {said} {result:?}"),
            }
        }
        drop(held);
        assert_eq!(finish(running, &report).await.succeeded().present, Some(true));

        // Not for longer than would leave it time.
        let file = fs::File::open(&lock).unwrap();
        let held = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive).unwrap();
        let short = world.deploy(with(json!({ "phase": "preflight", "timeout": 8 }))).await;
        short.failed("is locked by another deployment");
        drop(held);
        fs::remove_dir_all(&world.path).unwrap();
    }
}

#[tokio::test]
async fn as_another_user() {
    let world = World::new();
    let srv = world.dir.path().join("srv");
    fs::create_dir_all(&srv).unwrap();
    chown(&srv, Some(65534), Some(65534)).unwrap();
    fs::write(world.home.join(".gitconfig"), "[safe]\n\tdirectory = *\n").unwrap();
    let as_nobody = json!({ "user": "nobody" });
    let done = world.deploy(as_nobody.clone()).await.succeeded();
    assert!(done.changed);
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(world.path.join("version")).unwrap());
    assert_eq!(owner, 65534);
    world.deploy(json!({})).await.failed("belongs to nobody, and this deploys as root");
    fs::remove_dir_all(&world.path).unwrap();
    chown(&srv, Some(0), Some(0)).unwrap();
    world.deploy(as_nobody).await.failed("can't be created");
}

#[tokio::test]
async fn a_tree_that_could_not_be_written_is_no_success() {
    let world = World::new();
    let srv = world.dir.path().join("srv");
    fs::create_dir_all(&srv).unwrap();
    chown(&srv, Some(65534), Some(65534)).unwrap();
    fs::write(world.home.join(".gitconfig"), "[safe]\n\tdirectory = *\n").unwrap();
    let as_nobody = || json!({ "user": "nobody" });
    world.deploy(as_nobody()).await.succeeded();
    chown(world.path.join("config"), Some(0), Some(0)).unwrap();
    fs::write(world.origin.join("config/app.conf"), "newer").unwrap();
    world.commit_all();
    world.deploy(as_nobody()).await.failed("config/app.conf");
    let forced = json!({ "user": "nobody", "force": true });
    world.deploy(forced).await.failed("config/app.conf");
    // It is not taken for somebody's change, and done again.
    world.deploy(as_nobody()).await.failed("config/app.conf");
    chown(world.path.join("config"), Some(65534), Some(65534)).unwrap();
    world.deploy(as_nobody()).await.succeeded();
    assert_eq!(world.read("config/app.conf"), "newer");
    // And what could not be removed.
    chown(world.path.join("config"), Some(0), Some(0)).unwrap();
    fs::remove_dir_all(world.origin.join("config")).unwrap();
    world.commit_all();
    let done = world.deploy(as_nobody()).await.failed("says: config/app.conf");
    assert!(done.changed && world.path.join(".git/signet/busy").exists());
    world.deploy(as_nobody()).await.failed("says: config/app.conf");
    chown(world.path.join("config"), Some(65534), Some(65534)).unwrap();
    world.deploy(as_nobody()).await.succeeded();
    assert!(!world.path.join("config/app.conf").exists());
}

#[tokio::test]
async fn ignored_files_and_those_that_came_since_are_not_overwritten() {
    let world = World::new();
    fs::write(world.origin.join(".gitignore"), "local.conf\n").unwrap();
    world.commit_all();
    world.deploy(json!({})).await.succeeded();
    fs::write(world.path.join("local.conf"), "mine").unwrap();
    fs::write(world.origin.join("local.conf"), "theirs").unwrap();
    git(&world.origin, &["add", "-f", "local.conf"]);
    world.commit_all();
    world.deploy(json!({})).await.failed("local.conf");
    assert_eq!(world.read("local.conf"), "mine");
    world.deploy(json!({ "force": true })).await.succeeded();
    assert_eq!(world.read("local.conf"), "theirs");

    // A first deployment that got no further than a repository, and then somebody put a file there.
    fs::remove_dir_all(&world.path).unwrap();
    world.deploy(json!({ "commit": "d".repeat(40) })).await.failed("has no commit");
    fs::create_dir(&world.path).unwrap();
    fs::write(world.path.join("version"), "mine").unwrap();
    world.deploy(json!({})).await.failed("it holds version");
    assert_eq!(world.read("version"), "mine");
    fs::remove_file(world.path.join("version")).unwrap();
    world.deploy(json!({})).await.succeeded();
}

#[tokio::test]
async fn what_never_came_to_anything_is_in_nobodys_way() {
    let world = World::new();
    // Nothing is left of a first deployment that failed: neither here nor below is it in the way.
    world.deploy(json!({ "commit": "d".repeat(40) })).await.failed("has no commit");
    assert!(!world.path.join(".git").exists());
    world.deploy(json!({ "strategy": { "releases": {} } })).await.succeeded();
    // Above what is deployed to nothing is, not even with force.
    let above = world.path.with_file_name("team");
    world.deploy(json!({ "path": above.join("app") })).await.succeeded();
    world.deploy(json!({ "path": above, "force": true })).await.failed("is deployed to by itself");
    assert!(!above.join(".git").exists());
    // A lock that a git left when it was killed by an earlier version's driver, which knew no mark for that.
    fs::remove_dir_all(&world.path).unwrap();
    world.deploy(json!({})).await.succeeded();
    fs::write(world.path.join(".git/index.lock"), "").unwrap();
    fs::write(world.path.join(".git/signet/busy"), world.head()).unwrap();
    world.commit("next");
    world.deploy(json!({})).await.succeeded();
}

#[tokio::test]
async fn a_replaced_commit_is_not_deployed_for_another() {
    let world = World::new();
    let first = world.head();
    world.deploy(json!({})).await.succeeded();
    let second = world.commit("two");
    world.deploy(json!({ "phase": "preflight" })).await.succeeded();
    git(&world.path, &["replace", &second, &first]);
    world.deploy(json!({})).await.succeeded();
    assert_eq!(world.read("version"), "two");
}
