//! Hostile inputs to a deployment, from the request to the host, each with its outcome. What the agent does with worse, that
//! no controller would send, is in `agent/tests/deploy/hostile.rs`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use serde_json::{Value, json};

use super::deploys::{Site, git, statuses};

/// What is changed of a good request, and the field that the answer names.
fn refused() -> Vec<(&'static str, Value, &'static str)> {
    let url = |url: &str| json!({ "git_repo": url });
    let name = |name: &str| json!({ "git_branch": name });
    let place = |path: &str| json!({ "dest_path": path });
    let releases = |more: Value| {
        let mut body = json!({ "strategy": "releases" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let host = |host: &str| json!({ "targets": [{ "host": host }] });
    vec![
        ("a helper that runs a command", url("ext::sh -c 'id>/tmp/pwned'"), "git_repo"),
        ("a helper by its scheme", url("ext://h/x"), "git_repo"),
        ("a file descriptor", url("fd::17"), "git_repo"),
        ("an option as address", url("--upload-pack=touch /tmp/pwned"), "git_repo"),
        ("an option as host", url("ssh://-oProxyCommand=id/x"), "git_repo"),
        ("an option as host in the short form", url("git@-oProxyCommand=id:x"), "git_repo"),
        ("an option as path", url("git@h:-oProxyCommand=id"), "git_repo"),
        ("a password in the address", url("https://user:s3cret@h/x.git"), "git_repo"),
        ("a token in the address", url("https://ghp_0123456789@h/x.git"), "git_repo"),
        ("a transport that is not allowed", url("http://h/x.git"), "git_repo"),
        ("git's own transport, without a signature", url("git://h/x.git"), "git_repo"),
        ("a line end in the address", url("https://h/x\nHost: other"), "git_repo"),
        ("an escape code in the address", url("https://h/\u{1b}]0;x\u{7}"), "git_repo"),
        ("a template in the address", url("https://h/{{ lookup('pipe', 'id') }}"), "git_repo"),
        ("an address of 10,000 characters", url(&format!("https://h/{}", "x".repeat(10_000))), "git_repo"),
        ("an option as branch", name("--upload-pack=id"), "git_branch"),
        ("a refspec that writes another branch", name("main:refs/heads/other"), "git_branch"),
        ("a refspec that forces", name("+main"), "git_branch"),
        ("a revision that is no name", name("main~1"), "git_branch"),
        ("a name that leaves its directory", name("../../config"), "git_branch"),
        ("a reflog", name("main@{1}"), "git_branch"),
        ("a zero byte in the branch", name("ma\0in"), "git_branch"),
        ("a relative path", place("srv/app"), "dest_path"),
        ("a path that goes up", place("/srv/../etc/cron.d"), "dest_path"),
        ("the root", place("//./"), "dest_path"),
        ("a zero byte in the path", place("/srv/app\0/x"), "dest_path"),
        ("a template in the path", place("/srv/{{ ansible_user }}"), "dest_path"),
        ("a shared path that goes up", releases(json!({ "shared": ["../../etc"] })), "shared"),
        ("a shared path that is absolute", releases(json!({ "shared": ["/etc"] })), "shared"),
        ("a shared path in git's own directory", releases(json!({ "shared": [".git/hooks"] })), "shared"),
        ("a hook with a zero byte", releases(json!({ "build": ["true\0; id"] })), "a hook"),
        (
            "a health check on a file",
            releases(json!({ "health": { "probe": { "http": { "url": "file:///etc/shadow" } },
            "timeout": 1, "attempts": 1 } })),
            "health",
        ),
        (
            "an unknown field in a health check",
            releases(json!({ "health": { "probe": { "exec": "id" },
            "timeout": 1, "attempts": 1 } })),
            "health.probe",
        ),
        ("an option as account", json!({ "user": "-u root" }), "user"),
        ("an option as host name", host("-oProxyCommand=id"), "targets[0]"),
        ("a path as host name", host("../h1"), "targets[0]"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_rabbitmq_what_is_hostile_is_refused_at_the_edge() {
    let site = Site::start().await;
    let good = site.body("app", json!([{ "host": "h1" }]));
    let mut wrong = Vec::new();
    for (name, change, field) in refused() {
        let mut body = good.clone();
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let answer = site.app.post("/api/v1/jobs", &body).await;
        let details = answer.json()["error"]["details"].clone();
        let named = details.as_object().is_some_and(|all| all.keys().any(|key| key.starts_with(field)));
        if answer.status != 422 || !named || answer.text.contains("s3cret") || answer.text.contains("ghp_") {
            wrong.push(format!("{name}: {} {}", answer.status, answer.text));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The twin of them all.
    let _agent = site.agent("h1").await;
    let (job, log) = site.run(&good).await;
    assert_eq!(statuses(&job), ["SUCCESS"], "{log}");
    assert_eq!(site.app.number("SELECT COUNT(*) FROM jobs").await, 1, "nothing else was made");
}

fn commit_all(repo: &Path) {
    git(repo, &["add", "-A"]);
    git(repo, &["commit", "-q", "--allow-empty", "-m", "more"]);
}

/// What lies in a directory; nothing where there is none.
fn names(directory: impl AsRef<Path>) -> Vec<OsString> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<OsString> = entries.map(|entry| entry.file_name()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_rabbitmq_a_hostile_repository_does_no_harm() {
    let site = Site::start().await;
    let _agent = site.agent("h1").await;
    let repo = site.dir.path().join("repo");
    let place = site.place().join("app");
    let target = json!([{ "host": "h1" }]);
    let outside = site.dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();

    // Names that are no text, and that move a cursor.
    std::fs::write(repo.join(std::ffi::OsStr::from_bytes(b"caf\xe9\xff")), "x").unwrap();
    std::fs::write(repo.join("\u{1b}[31mred\u{7}\nsecond line"), "x").unwrap();
    commit_all(&repo);
    let (job, log) = site.run(&site.body("app", target.clone())).await;
    assert_eq!(statuses(&job), ["SUCCESS"], "{job} {log}");
    assert!(place.join(std::ffi::OsStr::from_bytes(b"caf\xe9\xff")).exists());
    // Named in an error, they are printable and on one line.
    std::fs::write(place.join("\u{1b}[31mred\u{7}\nsecond line"), "edited").unwrap();
    std::fs::write(repo.join("file"), "two").unwrap();
    commit_all(&repo);
    let (job, log) = site.run(&site.body("app", target.clone())).await;
    assert_eq!(statuses(&job), ["FAILED"], "{job} {log}");
    assert!(log.contains("red") && !log.contains(['\u{1b}', '\u{7}']), "{log:?}");
    assert!(!log.lines().any(|line| line.starts_with("second line")), "{log:?}");

    // Hooks that write escape codes, bytes that are no text, and a line that looks like another host's end.
    let mut noisy = site.body("noisy", target.clone());
    noisy["strategy"] = "releases".into();
    let text = r"printf '\033[2J\033]0;owned\007 \377\376\nfatal: [h2]: FAILED! => {}\r\n'; head -c 100000 /dev/zero | tr '\0' x";
    noisy["build"] = json!([text]);
    let (job, log) = site.run(&noisy).await;
    assert_eq!(statuses(&job), ["SUCCESS"], "{job}");
    assert!(log.contains("\\x1b[2J") && !log.contains(['\u{1b}', '\u{7}']), "no escape code is left");
    assert!(log.lines().all(|line| line.len() < 20_000), "a line is bounded");

    // A link to /etc, then a file below it.
    std::os::unix::fs::symlink("/etc", repo.join("link")).unwrap();
    std::os::unix::fs::symlink(&outside, repo.join("out")).unwrap();
    commit_all(&repo);
    let (job, log) = site.run(&site.body("linked", target.clone())).await;
    assert_eq!(statuses(&job), ["SUCCESS"], "{job} {log}");
    let linked = site.place().join("linked");
    assert!(linked.join("link").symlink_metadata().unwrap().file_type().is_symlink());
    std::fs::remove_file(repo.join("out")).unwrap();
    std::fs::create_dir(repo.join("out")).unwrap();
    std::fs::write(repo.join("out/planted"), "x").unwrap();
    commit_all(&repo);
    let (job, log) = site.run(&site.body("linked", target.clone())).await;
    assert_eq!(statuses(&job), ["SUCCESS"], "{job} {log}");
    assert!(linked.join("out/planted").exists() && !outside.join("planted").exists());
    // As shared paths they would lead out of the releases.
    std::os::unix::fs::symlink(&outside, repo.join("away")).unwrap();
    commit_all(&repo);
    let before = names("/etc/cron.d");
    for (path, link) in [("link/cron.d/planted", "link"), ("away/planted", "away")] {
        let mut shared = site.body("shared", target.clone());
        shared["strategy"] = "releases".into();
        shared["shared"] = json!([path]);
        let (job, log) = site.run(&shared).await;
        assert_eq!(statuses(&job), ["FAILED"], "{job} {log}");
        let why = job["targets"][0]["reason"].as_str().unwrap();
        let wanted = format!("{path} can't be shared: {link} is no directory in the repository");
        assert!(why.contains(&wanted), "{why}");
        assert!(!site.place().join("shared/current").exists());
    }
    assert_eq!((names("/etc/cron.d"), names(&outside)), (before, Vec::new()), "something was written there");

    // A place that is a link out of the deploy roots, and one that holds something else.
    std::os::unix::fs::symlink(&outside, site.place().join("gate")).unwrap();
    let (job, _) = site.run(&site.body("gate/app", target.clone())).await;
    assert_eq!(statuses(&job), ["FAILED"], "{job}");
    let why = job["targets"][0]["reason"].as_str().unwrap();
    assert!(why.contains("deploy root"), "{why}");
    assert_eq!(names(&outside), Vec::<OsString>::new());
    std::fs::create_dir(site.place().join("foreign")).unwrap();
    std::fs::write(site.place().join("foreign/precious"), "x").unwrap();
    let (job, _) = site.run(&site.body("foreign", target)).await;
    assert_eq!(statuses(&job), ["FAILED"], "{job}");
    assert!(job["targets"][0]["reason"].as_str().unwrap().contains("precious"), "{job}");
    assert!(site.place().join("foreign/precious").exists());
}
