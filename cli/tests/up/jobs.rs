//! `signet job` for people: what a job is, what to do about it, and back without a whole id.

use std::fs;
use std::path::Path;

use super::approvals::person;
use super::deploys::{Site, git};
use super::{Home, code, text, until};

#[test]
fn a_job_says_what_it_was_and_what_it_waits_for() {
    let site = Site::start();
    let deploy = ["--releases", "--build", "true", "--branch", "main"];
    assert_eq!(code(&site.deploy("app", "box", &deploy)).0, 0);
    let job = |args: &[&str]| code(&site.up.signet(&site.home, &[&["job"], args].concat()));
    let (exit, shown, why) = job(&["show", "job_1"]);
    assert_eq!(exit, 0, "{why}");
    let commit = git(&site.repo(), &["rev-parse", "HEAD"]);
    let path = site.place("app");
    for (name, text) in [
        ("status", "SUCCESS"),
        ("branch", "main"),
        ("path", &path),
        ("commit", &commit),
        ("asked by", "admin"),
        ("strategy", "releases, keep 5"),
        ("build", "true"),
    ] {
        assert!(shown.lines().any(|line| line == format!("{name:<12}{text}")), "{name} {text}: {shown}");
    }
    assert!(shown.contains("took        ") && !why.contains("paused"), "{shown}{why}");
    // Nothing starts, and whoever asks is told.
    assert!(site.up.signet(&site.home, &["pause", "on", "a freeze"]).status.success());
    let (exit, id, why) = code(&site.deploy("app", "box", &["--no-wait"]));
    assert!(
        exit == 0 && id == "job_2\n" && why.contains("dispatch is paused") && why.contains("a freeze"),
        "{id}{why}"
    );
    for args in [&["show", "job_2"][..], &["list"]] {
        let (exit, _, why) = job(args);
        assert!(
            exit == 0 && why.contains("dispatch is paused") && why.contains("a freeze"),
            "{args:?} {why}"
        );
    }
}

#[test]
fn a_deployment_that_waits_for_people_says_so_and_what_it_will_do() {
    let site = Site::start();
    let (alice, bob) = (person(&site.home, &site.up, "alice"), person(&site.home, &site.up, "bob"));
    let signet =
        |token: &str, args: &[&str]| code(&site.up.signet(&site.home, &[&["--token", token], args].concat()));
    assert!(site.up.signet(&site.home, &["approval-rules", "add", "@web"]).status.success());
    let (url, path) = (site.url(), site.place("app"));
    let words =
        ["deploy", &url, "--to", "@web", "--path", &path, "--no-wait", "--releases", "--build", "true"];
    assert_eq!(signet(&alice, &words).1, "job_1\n");
    let waits = until("a request for approval", || {
        let shown = signet(&alice, &["job", "show", "job_1"]).1;
        let line = shown.lines().find(|line| line.starts_with("waits       "))?;
        Some(line.to_owned())
    });
    assert!(waits.contains("for 1 more to approve it until 20"), "{waits}");
    let task = waits.split('`').nth(1).unwrap().rsplit(' ').next().unwrap().to_owned();
    assert!(signet(&bob, &["approvals"]).1.contains(&format!("{task}  deploy  ")));
    let (exit, said, shown) = signet(&bob, &["approve", &task, "--yes", "--no-sign"]);
    assert!(exit == 0 && said.contains("it runs now"), "{said}{shown}");
    for line in [format!("repository {url}"), "strategy  releases, keep 5".into(), "build     true".into()] {
        assert!(shown.lines().any(|one| one == line), "{line}: {shown}");
    }
    let (exit, _, why) = signet(&alice, &["job", "logs", "--follow", "job_1"]);
    assert!(exit == 0, "{why}");
}

#[test]
fn what_stands_in_the_way_is_named_with_its_option() {
    let site = Site::start();
    fs::create_dir_all(site.place("app")).unwrap();
    fs::write(Path::new(&site.place("app")).join("mine"), "").unwrap();
    let (exit, _, why) = code(&site.deploy("app", "box", &[]));
    assert!(exit == 1 && why.contains("hint: ") && why.contains("--force"), "{why}");
    let shown = site.up.signet(&site.home, &["job", "show", "job_1"]);
    assert!(text(&shown.stderr).contains("--force"), "{shown:?}");
    let args = ["deploy", "ftp://h/r", "--to", "box", "--path", "/srv/x"];
    let (exit, _, why) = code(&site.up.signet(&site.home, &args));
    assert!(exit == 3 && why.contains("SIGNET_GIT_PROTOCOLS on the controller"), "{why}");
    assert!(why.contains("the repository's address: ") && !why.contains("git_repo"), "{why}");
}

#[test]
fn what_a_variable_sets_is_no_part_of_the_usage() {
    let home = Home::new();
    let signet = |args: &[&str]| {
        code(&home.signet().env("SIGNET_URL", "http://127.0.0.1:1").args(args).output().unwrap())
    };
    let (exit, _, why) = signet(&["deploy", "https://h/r"]);
    assert!(exit == 2 && why.contains("--path <DIR>") && !why.contains("--url"), "{why}");
    let (exit, _, why) = signet(&["job", "list"]);
    assert!(exit == 3 && why.contains("http://127.0.0.1:1"), "{why}");
    let (exit, _, why) = signet(&["job", "list", "--url", "foo"]);
    assert!(exit == 2 && why.contains("\"foo\" is not an http"), "{why}");
}

#[test]
fn back_needs_no_whole_id() {
    let site = Site::start();
    let head = || git(&site.repo(), &["rev-parse", "HEAD"]);
    let mut commits = Vec::new();
    for content in ["one", "two", "three"] {
        fs::write(site.repo().join("file"), content).unwrap();
        git(&site.repo(), &["commit", "-q", "--allow-empty", "-a", "-m", content]);
        commits.push(head());
        assert_eq!(code(&site.deploy("app", "box", &["--branch", "main"])).0, 0);
    }
    let file = || fs::read_to_string(Path::new(&site.place("app")).join("file")).unwrap();
    let back =
        |args: &[&str]| code(&site.up.signet(&site.home, &[&["job", "rollback", "job_1"], args].concat()));
    let (exit, log, why) = back(&[]);
    assert!(
        exit == 0 && why.contains(&format!("go back to {}, which job_2 brought", commits[1])),
        "{log}{why}"
    );
    assert_eq!(file(), "two");
    let (exit, log, why) = back(&[&commits[0][..7]]);
    assert!(exit == 0 && why.contains(&commits[0]), "{log}{why}");
    assert_eq!(file(), "one");
    let (exit, _, why) = back(&["0000000"]);
    assert!(exit == 2 && commits.iter().all(|commit| why.contains(commit.as_str())), "{why}");
    assert_eq!(back(&["abc"]).0, 2);
}
