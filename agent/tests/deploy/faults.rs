//! The driver, and the agent above it, die at each step of a deployment.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use signet_common::fault::DeployPoint;
use signet_common::messages::Outcome;
use signet_testkit::eventually;

use crate::world::{PATIENCE, World, finish, runner};

/// Set in the process that plays the agent that is killed: the directory with its orders.
const AGENT: &str = "SIGNET_TEST_DEPLOYING_AGENT";

/// The agent's program, with a wish for its drivers.
fn launcher(world: &World, fault: &str) -> PathBuf {
    let file = world.dir.path().join(format!("launcher-{fault}"));
    let program = env!("CARGO_BIN_EXE_signet-agent");
    fs::write(&file, format!("#!/bin/sh\nSIGNET_FAULT='{fault}' exec {program} \"$@\"\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    file
}

/// A release that is complete says so in its last build hook.
fn releases() -> Value {
    let how = json!({
        "keep": 1, "shared": ["log"], "build": ["sleep 0", "echo yes > complete"], "activate": ["test -f complete"],
        "health": { "probe": { "command": "test -f ../../current/complete" }, "timeout": 5, "attempts": 1 },
    });
    json!({ "strategy": { "releases": how } })
}

/// What holds however far the second deployment came; then a third comes to its end.
async fn check(world: &World, point: DeployPoint) {
    let point = point.name();
    assert_eq!(world.read("current/complete"), "yes\n", "{point}");
    let version = world.read("current/version");
    assert!(["one", "two"].contains(&version.as_str()), "{point}: {version}");
    let done = world.deploy(releases()).await.succeeded();
    assert_eq!(world.read("current/version"), "two", "{point}");
    assert_eq!(world.read("current/complete"), "yes\n", "{point}");
    assert_eq!(done.commit.unwrap().as_str(), world.head(), "{point}");
}

#[tokio::test]
async fn the_driver_dies_at_each_step() {
    for point in DeployPoint::ALL {
        let world = World::new();
        world.deploy(releases()).await.succeeded();
        world.commit("two");
        let faulty = world.clone_with(launcher(&world, point.name()));
        let done = world.deploy_by(&faulty, releases()).await;
        assert_eq!(
            (done.result.outcome, done.result.signal),
            (Outcome::Failed, Some(6)),
            "{point:?}: {}",
            done.log
        );
        check(&world, *point).await;
    }
}

#[tokio::test]
async fn the_agent_is_killed_at_each_step() {
    for point in DeployPoint::ALL {
        let world = World::new();
        world.deploy(releases()).await.succeeded();
        world.commit("two");
        let (spec, report) = world.spec(releases(), None);
        let orders = json!({
            "launcher": launcher(&world, &format!("{}:1:stop", point.name())),
            "data": world.dir.path().join("killed"), "jti": spec.jti, "report": report, "home": world.home,
            "stdin": spec.stdin,
        });
        fs::write(world.dir.path().join("orders"), orders.to_string()).unwrap();
        let mut agent = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "faults::be_the_agent", "--nocapture"])
            .env(AGENT, world.dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let what = format!("the driver stands still at {point:?}");
        eventually(PATIENCE, &what, async || stopped(spec.jti.as_str())).await;
        kill(Pid::from_raw(agent.id().try_into().unwrap()), Signal::SIGKILL).unwrap();
        agent.wait().unwrap();
        // The next start ends what is left before anything else.
        let next = runner(&world.dir.path().join("killed"), env!("CARGO_BIN_EXE_signet-agent").into());
        assert_eq!(next.end_leftovers().await.unwrap().left, 0);
        assert!(world.path.join("current").exists());
        check(&world, *point).await;
    }
}

#[tokio::test]
async fn in_place_the_next_one_repairs_what_was_left() {
    use DeployPoint::{CheckedOut, Fetched, Locked};
    for point in [Locked, Fetched, CheckedOut] {
        for (first, preflight) in [(true, false), (true, true), (false, false), (false, true)] {
            let world = World::new();
            if !first {
                world.deploy(json!({})).await.succeeded();
                world.commit("two");
            }
            let faulty = world.clone_with(launcher(&world, point.name()));
            assert_eq!(world.deploy_by(&faulty, json!({})).await.result.signal, Some(6));
            if world.path.join(".git").exists() {
                // As git leaves them when it is killed in the middle.
                if point == CheckedOut {
                    fs::write(world.path.join("version"), "ha").unwrap();
                }
                let git = world.path.join(".git");
                let locks = ["index.lock", "refs/remotes/origin/main.lock", "modules/a/b/index.lock"];
                for lock in locks.map(|lock| git.join(lock)) {
                    fs::create_dir_all(lock.parent().unwrap()).unwrap();
                    fs::write(lock, "").unwrap();
                }
                fs::write(git.join("modules/a/b/HEAD"), "").unwrap();
            }
            if preflight {
                world.deploy(json!({ "phase": "preflight" })).await.succeeded();
            }
            let done = world.deploy(json!({})).await.succeeded();
            assert_eq!(done.commit.unwrap().as_str(), world.head());
            assert_eq!(world.read("version"), if first { "one" } else { "two" }, "{point:?} {first}");
            let left = [".git/modules/a/b/index.lock", ".git/signet/working"];
            assert!(left.iter().all(|left| !world.path.join(left).exists()), "{point:?} {first}");
        }
    }
}

#[tokio::test]
async fn a_git_that_was_killed_is_remembered_although_the_driver_lives() {
    let world = World::new();
    let filter = world.dir.path().join("filter");
    let killer = |text: &str| {
        fs::write(&filter, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&filter, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let config = format!("[filter \"killer\"]\n\tsmudge = {}\n", filter.display());
    fs::write(world.home.join(".gitconfig"), config).unwrap();
    fs::write(world.origin.join(".gitattributes"), "version filter=killer\n").unwrap();
    world.commit_all();
    let change = || json!({ "filters": true });
    killer("kill -9 $PPID");
    world.deploy(change()).await.failed("git checkout failed");
    let working = world.path.join(".git/signet/working");
    assert!(working.exists() && world.path.join(".git/index.lock").exists());
    killer("cat");
    world.deploy(change()).await.succeeded();
    assert!(!working.exists());
}

#[tokio::test]
async fn what_others_make_meanwhile_is_not_used() {
    let world = World::new();
    let (srv, outside) = (world.dir.path().join("srv"), world.dir.path().join("outside"));
    for directory in [&srv, &outside] {
        fs::create_dir(directory).unwrap();
    }
    fs::set_permissions(&srv, fs::Permissions::from_mode(0o1777)).unwrap();
    let faulty = world.clone_with(launcher(&world, &format!("{}:1:stop", DeployPoint::Resolved.name())));
    for strategy in [json!("in_place"), json!({ "releases": {} })] {
        for (path, link) in [("app", false), ("app/more", false), ("app", true), ("app/more", true)] {
            let change = json!({ "path": srv.join(path), "strategy": strategy });
            let (spec, report) = world.spec(change, None);
            let jti = spec.jti.clone();
            let running = faulty.start(spec).await.unwrap();
            let driver =
                eventually(PATIENCE, "the driver stands still", async || stopped(jti.as_str())).await;
            let app = srv.join("app");
            if link {
                symlink(&outside, &app).unwrap();
            } else {
                fs::create_dir(&app).unwrap();
                chown(&app, Some(65534), Some(65534)).unwrap();
            }
            kill(driver, Signal::SIGCONT).unwrap();
            let why =
                if link { "can't be created" } else { "app belongs to nobody, and this deploys as root" };
            finish(running, &report).await.failed(why);
            assert_eq!(fs::read_dir(&app).unwrap().count(), 0, "{path}");
            if link { fs::remove_file(&app) } else { fs::remove_dir(&app) }.unwrap();
        }
    }
}

#[tokio::test]
async fn a_commit_that_came_without_its_files_is_fetched_again() {
    for strategy in [json!("in_place"), json!({ "releases": {} })] {
        let world = World::new();
        world.deploy(json!({ "strategy": strategy })).await.succeeded();
        let second = world.commit("two");
        // As a fetch leaves it that is killed while it writes one object after the other.
        let repository = world.path.join(if strategy == "in_place" { ".git" } else { "repo.git" });
        let object = PathBuf::from("objects").join(&second[..2]).join(&second[2..]);
        fs::create_dir_all(repository.join(&object).parent().unwrap()).unwrap();
        fs::copy(world.origin.join(".git").join(&object), repository.join(&object)).unwrap();
        world.deploy(json!({ "strategy": strategy })).await.succeeded();
        let version = if strategy == "in_place" { "version" } else { "current/version" };
        assert_eq!(world.read(version), "two");
    }
}

/// A driver of this message that is stopped.
fn stopped(jti: &str) -> Option<Pid> {
    let is = |process: &Path| -> Option<Pid> {
        let environment = fs::read(process.join("environ")).ok()?;
        let ours = String::from_utf8_lossy(&environment).contains(jti);
        let arguments = fs::read(process.join("cmdline")).ok()?;
        let driver = String::from_utf8_lossy(&arguments).contains("--signet-deploy");
        let status = fs::read_to_string(process.join("status")).ok()?;
        (ours && driver && status.contains("State:\tT"))
            .then(|| process.file_name()?.to_str()?.parse().ok().map(Pid::from_raw))?
    };
    fs::read_dir("/proc").unwrap().find_map(|entry| is(&entry.ok()?.path()))
}

/// Not a test by itself: the agent that is killed.
#[tokio::test]
async fn be_the_agent() {
    let Some(dir) = std::env::var_os(AGENT) else { return };
    let orders = fs::read(Path::new(&dir).join("orders")).unwrap();
    let orders: Value = serde_json::from_slice(&orders).unwrap();
    let text = |name: &str| orders[name].as_str().unwrap().to_owned();
    let runner = runner(text("data").as_ref(), text("launcher").into());
    let spec = crate::world::driver(
        text("jti").parse().unwrap(),
        text("report").into(),
        text("home"),
        text("stdin"),
    );
    let running = runner.start(spec).await.unwrap();
    std::future::pending::<()>().await;
    drop(running);
}

#[test]
fn every_step_is_documented() {
    let document = include_str!("../../../docs/architecture.md");
    for point in DeployPoint::ALL {
        assert!(document.contains(&format!("`{}`", point.name())), "{}", point.name());
    }
}
