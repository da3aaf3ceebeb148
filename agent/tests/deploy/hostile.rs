//! Repositories, directories and configurations that want more than to be deployed.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::world::{World, git};

/// A program that notes that it ran.
pub(crate) fn trap(world: &World) -> (PathBuf, PathBuf) {
    let (program, mark) = (world.dir.path().join("trap"), world.dir.path().join("trapped"));
    fs::write(&program, format!("#!/bin/sh\ntouch {}\ncat\n", mark.display())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    (program, mark)
}

/// A commit whose tree has one directory with an impossible name.
fn impossible_tree(world: &World, name: &str) -> String {
    let blob = git(&world.origin, &["rev-parse", "HEAD:version"]);
    let bytes = |id: &str| hex::decode(id).unwrap();
    let literal = |tree: &[u8]| {
        let file = world.dir.path().join("tree");
        fs::write(&file, tree).unwrap();
        let file = file.to_str().unwrap();
        git(&world.origin, &["hash-object", "-t", "tree", "--literally", "-w", file])
    };
    let inner = literal(&[&b"100644 config\0"[..], &bytes(&blob)].concat());
    let outer = literal(&[b"40000 ", name.as_bytes(), b"\0", &bytes(&inner)].concat());
    let commit = git(&world.origin, &["commit-tree", "-m", "x", &outer]);
    git(&world.origin, &["update-ref", "refs/heads/hostile", &commit]);
    commit
}

#[tokio::test]
async fn names_that_lead_into_git_or_out_of_the_tree_are_not_checked_out() {
    for name in [".git", ".GIT", "..", ".", "git~1"] {
        let world = World::new();
        let commit = impossible_tree(&world, name);
        for strategy in [json!("in_place"), json!({ "releases": {} })] {
            let change = json!({ "reference": "hostile", "commit": commit, "strategy": strategy });
            // Else nothing may be left of it.
            fs::create_dir_all(&world.path).unwrap();
            let done = world.deploy(change).await;
            assert_eq!(done.result.exit_code, Some(1), "{name}: {}", done.log);
            assert!(!world.path.join("current").exists());
            let config = fs::read_to_string(world.path.join(".git/config")).unwrap_or_default();
            assert_ne!(config, "one", "{name}");
            fs::remove_dir_all(&world.path).unwrap();
        }
    }
}

#[tokio::test]
async fn nothing_is_written_through_a_symbolic_link_of_the_repository() {
    let world = World::new();
    let outside = world.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, world.origin.join("out")).unwrap();
    symlink("/etc", world.origin.join("etc")).unwrap();
    world.commit_all();
    world.deploy(json!({})).await.succeeded();
    assert_eq!(
        fs::read_link(world.path.join("etc")).unwrap(),
        Path::new("/etc"),
        "it is what the repository holds"
    );
    // The link becomes a directory with a file.
    fs::remove_file(world.origin.join("out")).unwrap();
    fs::create_dir(world.origin.join("out")).unwrap();
    fs::write(world.origin.join("out/file"), "x").unwrap();
    world.commit_all();
    world.deploy(json!({})).await.succeeded();
    assert!(world.path.join("out/file").is_file());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[tokio::test]
async fn shared_paths_lead_nowhere_else() {
    let world = World::new();
    let outside = world.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, world.origin.join("out")).unwrap();
    symlink(outside.join("secret"), world.origin.join("link")).unwrap();
    world.commit_all();
    let how = |shared: &str| json!({ "strategy": { "releases": { "shared": [shared] } } });
    world.deploy(how("out/log")).await.failed("out is no directory in the repository");
    world.deploy(how("version/log")).await.failed("version is no directory in the repository");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    // Nor on the side of what is shared, where the application may write.
    fs::create_dir_all(world.path.join("shared")).unwrap();
    symlink(&outside, world.path.join("shared/config")).unwrap();
    world.deploy(how("config/app.conf")).await.failed("config is no directory in what is shared");
    fs::remove_file(world.path.join("shared/config")).unwrap();
    fs::create_dir(world.path.join("shared/config")).unwrap();
    symlink(outside.join("copy"), world.path.join("shared/config/app.conf.signet-next")).unwrap();
    world.deploy(how("config/app.conf")).await.succeeded();
    assert_eq!(world.read("shared/config/app.conf"), "from the repository");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    let forced = json!({ "force": true });
    let mut link = how("link");
    link.as_object_mut().unwrap().extend(forced.as_object().unwrap().clone());
    // At its end the link is replaced, and not followed.
    world.deploy(link).await.succeeded();
    assert!(world.path.join("shared/link").is_dir());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[tokio::test]
async fn filters_run_only_when_asked_for() {
    let world = World::new();
    let (program, mark) = trap(&world);
    let config =
        format!("[filter \"Evil.x\"]\n\tsmudge = {0}\n\tclean = {0}\n\trequired = true\n", program.display());
    fs::write(world.home.join(".gitconfig"), config).unwrap();
    fs::write(world.origin.join(".gitattributes"), "* filter=Evil.x\n").unwrap();
    world.commit_all();
    world.deploy(json!({})).await.succeeded();
    world.deploy(json!({})).await.succeeded();
    assert!(!mark.exists());
    let releases = json!({ "path": world.dir.path().join("srv/releases"), "strategy": { "releases": {} } });
    world.deploy(releases).await.succeeded();
    assert!(!mark.exists());
    let asked = json!({ "path": world.dir.path().join("srv/filtered"), "filters": true });
    world.deploy(asked).await.succeeded();
    assert!(mark.exists());
}

#[tokio::test]
async fn hooks_templates_monitors_and_ssh_commands_of_git_never_run() {
    let world = World::new();
    let (program, mark) = trap(&world);
    let hooks = world.home.join("template/hooks");
    fs::create_dir_all(&hooks).unwrap();
    for name in ["post-checkout", "post-merge", "reference-transaction", "pre-commit", "post-index-change"] {
        fs::copy(&program, hooks.join(name)).unwrap();
    }
    let config = format!(
        "[core]\n\thooksPath = {}\n\tfsmonitor = {1}\n\tsshCommand = {1}\n\tpager = {1}\n\teditor = {1}\n\
         [init]\n\ttemplateDir = {2}\n[pager]\n\tstatus = {1}\n",
        hooks.display(),
        program.display(),
        world.home.join("template").display()
    );
    fs::write(world.home.join(".gitconfig"), &config).unwrap();
    world.deploy(json!({})).await.succeeded();
    // And when the tree's own repository says so.
    let own = world.path.join(".git/config");
    fs::write(&own, fs::read_to_string(&own).unwrap() + &config).unwrap();
    world.commit("two");
    world.deploy(json!({})).await.succeeded();
    world.deploy(json!({})).await.succeeded();
    assert!(!mark.exists());
}

#[tokio::test]
async fn submodules_come_only_when_asked_for_and_only_over_allowed_protocols() {
    let world = World::new();
    let inner = world.dir.path().join("inner");
    fs::create_dir(&inner).unwrap();
    git(&inner, &["init", "-q"]);
    fs::write(inner.join("file"), "inner").unwrap();
    git(&inner, &["add", "-A"]);
    git(&inner, &["commit", "-q", "-m", "x"]);
    let url = format!("file://{}", inner.display());
    git(&world.origin, &["submodule", "--quiet", "add", &url, "module"]);
    world.commit_all();
    world.deploy(json!({})).await.succeeded();
    assert!(!world.path.join("module/file").exists());
    let asked = |place: &str, strategy: serde_json::Value| json!({ "path": world.dir.path().join("srv").join(place), "submodules": true, "strategy": strategy });
    world.deploy(asked("in-place", json!("in_place"))).await.succeeded();
    assert!(world.dir.path().join("srv/in-place/module/file").exists());
    world.deploy(asked("releases", json!({ "releases": {} }))).await.succeeded();
    assert!(world.dir.path().join("srv/releases/current/module/file").exists());

    let mark = world.dir.path().join("trapped");
    for (number, url) in
        [format!("ext::touch {}", mark.display()), format!("-u{}", mark.display()), "fd::3".into()]
            .iter()
            .enumerate()
    {
        git(&world.origin, &["config", "-f", ".gitmodules", "submodule.module.url", url]);
        world.commit_all();
        let done = world.deploy(asked(&format!("bad{number}"), json!("in_place"))).await;
        assert_eq!(done.result.exit_code, Some(1), "{url}: {}", done.log);
        assert!(!mark.exists(), "{url}");
    }
}

#[tokio::test]
async fn names_that_are_no_text_and_escape_codes() {
    let world = World::new();
    for name in [&b"caf\xe9"[..], b"line\nbreak", b"\x1b[31mred", b"-rf", b"a\tb"] {
        fs::write(world.origin.join(OsStr::from_bytes(name)), "x").unwrap();
    }
    world.commit_all();
    world.deploy(json!({})).await.succeeded();
    let file = |name: &[u8]| world.path.join(OsStr::from_bytes(name));
    assert!(file(b"caf\xe9").exists() && file(b"line\nbreak").exists() && file(b"-rf").exists());
    for name in [&b"caf\xe9"[..], b"line\nbreak", b"\x1b[31mred"] {
        fs::write(file(name), "edited").unwrap();
    }
    let done = world.deploy(json!({})).await;
    assert!(!done.fault.as_ref().unwrap().contains(char::is_control), "{done:?}");
    done.failed("was changed by hand: \"\\033[31mred\", \"caf\\351\", \"line\\nbreak\"");
    let how = json!({ "releases": { "build": ["printf '\\033]0;title\\007\\377'; printf '\\033[2J' >&2; exit 1"] } });
    let change = json!({ "path": world.dir.path().join("srv/other"), "strategy": how });
    let done = world.deploy(change).await;
    assert!(!done.fault.as_ref().unwrap().contains(char::is_control), "{done:?}");
    done.failed("build hook 1 failed");
}

#[tokio::test]
async fn places_that_are_not_what_they_seem() {
    let world = World::new();
    let srv = world.dir.path().join("srv");
    fs::create_dir(&srv).unwrap();
    let outside = world.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let at = async |name: &str| world.deploy(json!({ "path": srv.join(name) })).await;
    symlink(&outside, srv.join("out")).unwrap();
    let roots = format!(
        "and so is below none of this host's deploy roots: {} (`deploy_roots` in /etc/signet/policy.toml)",
        world.dir.path().join("srv").display()
    );
    at("out").await.failed(&roots);
    at("out/app").await.failed("and so is below none");
    symlink(outside.join("later"), srv.join("dangling")).unwrap();
    at("dangling").await.failed("can't be followed");
    at("dangling/app").await.failed("can't be followed");
    symlink("loop", srv.join("loop")).unwrap();
    at("loop").await.failed("can't be followed");
    fs::write(srv.join("file"), "x").unwrap();
    at("file").await.failed("can't be created");
    at("file/app").await.failed("file/app");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);

    // A link that stays inside is followed.
    symlink(srv.join("real"), srv.join("inside")).unwrap();
    fs::create_dir(srv.join("real")).unwrap();
    at("inside").await.succeeded();
    assert!(srv.join("real/version").exists());

    fs::create_dir(srv.join("gitfile")).unwrap();
    fs::write(srv.join("gitfile/.git"), format!("gitdir: {}", world.origin.join(".git").display())).unwrap();
    at("gitfile").await.failed(".git is no directory");
    fs::create_dir(srv.join("gitlink")).unwrap();
    symlink(world.origin.join(".git"), srv.join("gitlink/.git")).unwrap();
    at("gitlink").await.failed(".git is no directory");

    at("theirs").await.succeeded();
    chown(srv.join("theirs/.git"), Some(65534), None).unwrap();
    at("theirs").await.failed("belongs to nobody, and this deploys as root");
    let force = json!({ "path": srv.join("theirs"), "force": true });
    world.deploy(force).await.failed("belongs to nobody, and this deploys as root");
}

#[tokio::test]
async fn an_id_must_be_that_of_a_commit() {
    let world = World::new();
    git(&world.origin, &["tag", "-a", "v1", "-m", "v1"]);
    for object in ["refs/tags/v1", "HEAD^{tree}", "HEAD:version"] {
        let id = git(&world.origin, &["rev-parse", object]);
        let done = world.deploy(json!({ "commit": id, "reference": "v1" })).await;
        done.failed("the repository has no commit");
        assert!(!world.path.join("version").exists());
    }
}

#[tokio::test]
async fn protocols_that_are_not_allowed_are_not_spoken() {
    let world = World::new();
    let done = world.deploy(json!({ "protocols": ["https", "ssh"] })).await;
    done.failed("a protocol that is not allowed");
    // Nor when the user's configuration leads there.
    let url =
        format!("[url \"file://{}\"]\n\tinsteadOf = ssh://git@example.com/app\n", world.origin.display());
    fs::write(world.home.join(".gitconfig"), url).unwrap();
    let change = json!({ "repository": "ssh://git@example.com/app", "protocols": ["ssh"] });
    world.deploy(change).await.failed("transport 'file' not allowed");
}

#[tokio::test]
async fn others_can_write_nowhere_above_it() {
    let world = World::new();
    let srv = world.dir.path().join("srv");
    fs::create_dir_all(&srv).unwrap();
    let mode = |mode| fs::set_permissions(&srv, fs::Permissions::from_mode(mode)).unwrap();
    chown(&srv, None, Some(65534)).unwrap();
    mode(0o775);
    world.deploy(json!({})).await.failed("srv can be written to by its group");
    mode(0o757);
    world.deploy(json!({})).await.failed("srv can be written to by everybody");
    mode(0o1777);
    world.deploy(json!({})).await.succeeded();
    // Of somebody else, although the tree is one's own.
    mode(0o755);
    chown(&srv, Some(65534), None).unwrap();
    world.deploy(json!({})).await.failed("srv belongs to nobody, and this deploys as root: deploy as nobody");
    chown(&srv, Some(0), None).unwrap();
    fs::set_permissions(world.path.join(".git"), fs::Permissions::from_mode(0o777)).unwrap();
    world.deploy(json!({})).await.failed(".git can be written to by everybody");
}

#[tokio::test]
async fn the_inside_of_a_repository_is_no_place() {
    let world = World::new();
    let bare = world.dir.path().join("srv/bare");
    fs::create_dir_all(&bare).unwrap();
    git(&bare, &["init", "-q", "--bare"]);
    let inside = json!({ "path": bare.join("hooks/new") });
    world.deploy(inside).await.failed("bare is the directory of a git repository");
    assert!(!bare.join("hooks/new").exists());
}

/// What would be a mirror, whose configuration names a program, below `path`.
fn bring_mirror(path: &Path, mark: &Path) {
    for directory in
        ["repo.git/objects/info", "repo.git/objects/pack", "repo.git/refs", "alt/objects", "alt/refs"]
    {
        fs::create_dir_all(path.join(directory)).unwrap();
        fs::write(path.join(directory).join(".keep"), "").unwrap();
    }
    fs::write(path.join("repo.git/HEAD"), "ref: refs/heads/main\n").unwrap();
    fs::write(path.join("repo.git/objects/info/alternates"), "../../alt/objects\n").unwrap();
    let config = format!(
        "[core]\n\trepositoryformatversion = 0\n\tbare = true\n\talternateRefsCommand = touch {}; true\n",
        mark.display()
    );
    fs::write(path.join("repo.git/config"), config).unwrap();
}

#[tokio::test]
async fn a_tree_brings_no_mirror_of_its_own() {
    let world = World::new();
    let mark = world.dir.path().join("trapped");
    bring_mirror(&world.origin, &mark);
    bring_mirror(&world.origin.join("sub"), &mark);
    world.commit_all();
    world.deploy(json!({})).await.succeeded();
    world.commit("two");
    for phase in ["preflight", "deploy"] {
        for force in [false, true] {
            for (path, why) in [
                (world.path.clone(), "is a git working tree and holds no releases"),
                (world.path.join("sub"), "app is a git working tree, and nothing is deployed inside one"),
                (
                    world.path.join("new/path"),
                    "app is a git working tree, and nothing is deployed inside one",
                ),
            ] {
                let change =
                    json!({ "path": path, "strategy": { "releases": {} }, "phase": phase, "force": force });
                world.deploy(change).await.failed(why);
                assert!(!mark.exists() && !path.join("releases").exists(), "{phase} {force}");
            }
        }
    }
    // Nor is one taken for a release's.
    let other = world.dir.path().join("srv/other");
    let at = |path: &Path| json!({ "path": path, "strategy": { "releases": {} } });
    world.deploy(at(&other)).await.succeeded();
    let release = other.join("current").canonicalize().unwrap();
    for path in [release.join("sub"), release, other.join("current/sub"), other.join("shared")] {
        world
            .deploy(at(&path))
            .await
            .failed("other is a path with releases, and nothing is deployed inside one");
    }
    assert!(!mark.exists());
    // Also where it came in another way.
    let third = world.dir.path().join("srv/third");
    bring_mirror(&third, &mark);
    world.deploy(at(&third)).await.failed("repo.git/objects/info/alternates is not of this mirror");
    fs::remove_file(third.join("repo.git/objects/info/alternates")).unwrap();
    for name in ["commondir", "config.worktree"] {
        fs::write(third.join("repo.git").join(name), "../alt").unwrap();
        world.deploy(at(&third)).await.failed("is not of this mirror");
        fs::remove_file(third.join("repo.git").join(name)).unwrap();
    }
    assert!(!mark.exists());
}

#[tokio::test]
async fn a_mirror_is_configured_by_nobody_else() {
    let world = World::new();
    let releases = || json!({ "strategy": { "releases": {} } });
    world.deploy(releases()).await.succeeded();
    let config = world.path.join("repo.git/config");
    let first = fs::read_to_string(&config).unwrap();
    assert!(first.contains("bare = true") && first.contains("url = "), "{first}");
    for phase in ["preflight", "deploy"] {
        let commit = world.commit(phase);
        fs::write(&config, format!("[include]\n\tpath = evil\n{first}[credential]\n\thelper = evil\n"))
            .unwrap();
        let mut change = releases();
        change["phase"] = phase.into();
        world.deploy(change).await.succeeded();
        assert_eq!(fs::read_to_string(&config).unwrap(), first, "{phase}");
        assert_eq!(git(&world.path.join("repo.git"), &["cat-file", "-t", &commit]), "commit");
    }
    assert_eq!(world.read("current/version"), "deploy");
}

#[tokio::test]
async fn where_git_is_configured_is_no_place() {
    let world = World::new();
    for name in ["alice/.config", "alice/.config/git", "alice/.config/git/more"] {
        let path = world.dir.path().join("srv").join(name);
        world.deploy(json!({ "path": path })).await.failed("is where git looks for a user's configuration");
        assert!(!path.exists());
    }
}
