//! Every way to log in, right and wrong; keys of hosts; what hangs and is ended.

use std::net::TcpListener;

use serde_json::{Value, json};
use signet_testkit::ssh::SshKey;
use signet_testkit::sshd::{Account, Sshd};
use signet_testkit::{Pair, on_both_pairs};

use crate::site::{Site, current_ansible, statuses, with_key, with_password};

on_both_pairs!(
    each_way_to_log_in,
    each_way_to_log_in_with_a_current_ansible,
    a_changed_host_key_is_refused,
    a_changed_host_key_is_refused_with_a_current_ansible,
    two_jobs_pin_one_key,
    what_hangs_is_ended,
    a_tree_on_no_branch_gets_the_default_one
);

fn account<'a>(name: &'a str, password: Option<&'a str>, key: Option<&'a str>) -> Account<'a> {
    Account { name, password, key }
}

async fn each_way_to_log_in(pair: Pair) {
    if Sshd::possible() {
        each_way(&Site::start(pair).await).await;
    }
}

async fn each_way_to_log_in_with_a_current_ansible(pair: Pair) {
    if let Some(ansible) = current_ansible().filter(|_| Sshd::possible()) {
        each_way(&Site::with(pair, Some(ansible)).await).await;
    }
}

async fn each_way(site: &Site) {
    let key = SshKey::ed25519(site.dir.path(), "plain");
    let locked = SshKey::locked(site.dir.path(), "locked", "open {{ sesame }}");
    // A password that is a template, a quoted string and an option at once.
    let password = "-p {{ 7 * 7 }} '\"$x";
    let first = Sshd::start(&[account("one", Some(password), None)]);
    let second = Sshd::start(&[account("two", None, Some(&key.public))]);
    let third = Sshd::start(&[account("three", None, Some(&locked.public))]);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let good = [
        with_password("127.0.0.1", first.port, "one", password),
        with_key("127.0.0.1", second.port, "two", &key.private(), None),
        with_key("127.0.0.1", third.port, "three", &locked.private(), Some("open {{ sesame }}")),
    ];
    let bad = [
        with_password("127.0.0.2", first.port, "one", "wrong-password"),
        with_key("127.0.0.3", third.port, "three", &locked.private(), Some("wrong-passphrase")),
        with_key("127.0.0.4", third.port, "three", &locked.private(), None),
        with_key("127.0.0.5", third.port, "three", &key.private(), None),
        with_key("127.0.0.6", closed, "two", &key.private(), None),
        with_key(
            "127.0.0.7",
            second.port,
            "two",
            "-----BEGIN OPENSSH PRIVATE KEY-----\nx\n-----END OPENSSH PRIVATE KEY-----",
            None,
        ),
    ];
    let job = site.run(&site.body(&[&good[..], &bad[..]].concat())).await;
    let log = site.log(&job).await;
    let wanted = [
        "SUCCESS",
        "SUCCESS",
        "SUCCESS",
        "UNREACHABLE",
        "FAILED",
        "FAILED",
        "UNREACHABLE",
        "UNREACHABLE",
        "FAILED",
    ];
    assert_eq!(statuses(&job), wanted, "{log}");
    assert_eq!(job["status"], "FAILED");
    assert!(
        log.contains("PLAY [all] ***") && log.contains("TASK [git] ***") && log.contains("PLAY RECAP ***"),
        "{log}"
    );
    for target in &job["targets"].as_array().unwrap()[3..] {
        let (host, reason) = (target["host"].as_str().unwrap(), target["reason"].as_str().unwrap());
        assert!(!reason.is_empty());
        let line = format!("fatal: [{host}]: ");
        assert!(log.lines().any(|l| l.starts_with(&line)), "no line about {host}: {log}");
        assert!(
            log.lines().any(|l| l.starts_with(host) && l.contains(": ok=0")),
            "no recap of {host}: {log}"
        );
    }
    let reason = |n: usize| job["targets"][n]["reason"].as_str().unwrap();
    assert_eq!(reason(4), "the passphrase does not open the private key");
    assert_eq!(reason(5), "the private key needs a passphrase, and none was given");
    assert!(reason(8).contains("can't be read"), "{}", reason(8));
    for server in [&first, &second, &third] {
        assert_eq!(std::fs::read_to_string(server.sees("/srv/app/file")).unwrap(), "one");
    }
    again_and_newer(site, &bad[..1], &good).await;
    assert_eq!(std::fs::read_to_string(third.sees("/srv/app/file")).unwrap(), "two");
}

/// The same again changes nothing; a new commit does, and so does the way back. One after the other, whatever fails.
async fn again_and_newer(site: &Site, bad: &[Value], good: &[Value]) {
    let mut body = site.body(&[bad, good].concat());
    body["run_mode"] = "serial".into();
    let again = site.run(&body).await;
    assert_eq!(statuses(&again), ["UNREACHABLE", "SUCCESS", "SUCCESS", "SUCCESS"]);
    assert_eq!(again["targets"][1]["changed"], false);
    site.commit("two");
    let newer = site.retry(&again).await;
    assert_eq!(newer["targets"][1]["changed"], true, "{newer}");
    assert_eq!(newer["retry_of"], again["job_id"]);
    // And back to the commit before, from where the branch is found again.
    let one = &again["targets"][1]["commit"];
    assert_ne!(one, &newer["targets"][1]["commit"]);
    let path = format!("/api/v1/jobs/{}/rollback?wait=120", newer["job_id"].as_str().unwrap());
    let made = site.app.post(&path, &json!({ "commit": one })).await.expect(200);
    let back = site.detail(made["data"]["job_id"].as_str().unwrap()).await;
    assert_eq!(statuses(&back), statuses(&newer), "{}", site.log(&back).await);
    assert_eq!((&back["targets"][1]["commit"], &back["targets"][1]["changed"]), (one, &json!(true)));
    assert_eq!(site.run(&body).await["targets"][1]["commit"], newer["targets"][1]["commit"]);
}

/// A path to which an agent deployed stands on no branch, and knows none that would be the remote's default.
async fn a_tree_on_no_branch_gets_the_default_one(pair: Pair) {
    if !Sshd::possible() {
        return;
    }
    let site = Site::start(pair).await;
    let host = Sshd::start(&[account("one", Some("pw"), None)]);
    let mut body = site.body(&[with_password("127.0.0.1", host.port, "one", "pw")]);
    assert_eq!(statuses(&site.run(&body).await), ["SUCCESS"]);
    let git = host.sees("/srv/app/.git");
    std::fs::write(git.join("HEAD"), format!("{}\n", site.head())).unwrap();
    for gone in ["refs/heads/main", "refs/remotes/origin/HEAD"] {
        std::fs::remove_file(git.join(gone)).unwrap();
    }
    site.commit("two");
    body.as_object_mut().unwrap().remove("git_branch");
    let job = site.run(&body).await;
    assert_eq!(statuses(&job), ["SUCCESS"], "{}", site.log(&job).await);
    assert_eq!(job["targets"][0]["commit"], site.head());
    // Where the controller can't tell, the log says why.
    body["git_repo"] = "file:///nowhere/at/all".into();
    let job = site.run(&body).await;
    assert_eq!(statuses(&job), ["FAILED"]);
    let log = site.log(&job).await;
    assert!(
        log.starts_with("[WARNING]: the controller can't tell the repository's default branch: "),
        "{log}"
    );
}

async fn a_changed_host_key_is_refused(pair: Pair) {
    if Sshd::possible() {
        a_changed_key(&Site::start(pair).await).await;
    }
}

async fn a_changed_host_key_is_refused_with_a_current_ansible(pair: Pair) {
    if let Some(ansible) = current_ansible().filter(|_| Sshd::possible()) {
        a_changed_key(&Site::with(pair, Some(ansible)).await).await;
    }
}

async fn a_changed_key(site: &Site) {
    let key = SshKey::ed25519(site.dir.path(), "key");
    let mut server = Sshd::start(&[account("u", None, Some(&key.public))]);
    let mut body = site.body(&[with_key("127.0.0.1", server.port, "u", &key.private(), None)]);
    let with = |policy: &str, body: &Value| {
        let mut body = body.clone();
        body["host_key_policy"] = policy.into();
        body
    };
    let unknown = site.run(&with("strict", &body)).await;
    assert_eq!(statuses(&unknown), ["UNREACHABLE"]);
    let reason = unknown["targets"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("key is not known"), "{reason}");
    let pinned = site.run(&body).await;
    assert_eq!(statuses(&pinned), ["SUCCESS"], "{}", site.log(&pinned).await);
    assert_eq!(statuses(&site.run(&with("strict", &body)).await), ["SUCCESS"]);
    server.replace_key();
    // No connection of the job before is left to slip through, and a retry pins nothing anew.
    for changed in [site.run(&body).await, site.retry(&pinned).await, site.run(&with("strict", &body)).await]
    {
        assert_eq!(statuses(&changed), ["UNREACHABLE"]);
        let reason = changed["targets"][0]["reason"].as_str().unwrap();
        assert!(reason.contains("not the one that was pinned"), "{reason}");
    }
    assert_eq!(statuses(&site.run(&with("off", &body)).await), ["SUCCESS"]);
    forgotten(site, server.port).await;
    assert_eq!(statuses(&site.run(&body).await), ["SUCCESS"]);
    // A wrong key is refused although the right one was let in a moment ago.
    let other = SshKey::ed25519(site.dir.path(), "other");
    body["targets"][0]["auth"]["private_key"] = other.private().into();
    assert_eq!(statuses(&site.run(&with("off", &body)).await), ["UNREACHABLE"]);
}

/// Of two jobs to which a host shows its key at the same time one pins it, and the trail says so once.
async fn two_jobs_pin_one_key(pair: Pair) {
    if !Sshd::possible() {
        return;
    }
    let site = Site::start(pair).await;
    let key = SshKey::ed25519(site.dir.path(), "key");
    let server = Sshd::start(&[account("u", None, Some(&key.public))]);
    let one = site.body(&[with_key("127.0.0.1", server.port, "u", &key.private(), None)]);
    let mut other = one.clone();
    other["dest_path"] = "/srv/other".into();
    let (one, other) = tokio::join!(site.run(&one), site.run(&other));
    assert_eq!((statuses(&one), statuses(&other)), (vec!["SUCCESS"], vec!["SUCCESS"]), "{one} {other}");
    let entries = site.app.get("/api/audit?action=job.host-key-pin").await.expect(200);
    assert_eq!(entries.as_array().unwrap().len(), 1, "{entries}");
}

/// What was installed anew is let in again once its old key is forgotten.
async fn forgotten(site: &Site, port: u16) {
    let keys = site.app.get("/api/v1/jobs/host-keys").await.expect(200);
    let one = &keys["data"]["items"][0];
    assert_eq!(
        (&keys["data"]["total"], &one["host"], &one["port"]),
        (&json!(1), &json!("127.0.0.1"), &json!(port))
    );
    let path = "/api/v1/jobs/host-keys/127.0.0.1";
    site.app.delete(path).await.expect(404);
    site.app.delete(&format!("{path}?port=0")).await.expect(422);
    site.app.delete(&format!("{path}?port={port}")).await.expect(200);
    let keys = site.app.get("/api/v1/jobs/host-keys").await.expect(200);
    assert_eq!(keys["data"]["items"], json!([]));
}

async fn what_hangs_is_ended(pair: Pair) {
    if !Sshd::possible() {
        return;
    }
    let site = Site::start(pair).await;
    let key = SshKey::ed25519(site.dir.path(), "key");
    let server = Sshd::start(&[account("u", None, Some(&key.public))]);
    // Takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut body = site.body(&[with_key("127.0.0.1", server.port, "u", &key.private(), None)]);
    body["git_repo"] = format!("https://{}/x.git", silent.local_addr().unwrap()).into();
    let id =
        site.app.post("/api/v1/jobs", &body).await.expect(202)["data"]["job_id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/jobs/{id}");
    site.app.eventually(&path, |job| job["data"]["targets"][0]["status"] == "RUNNING").await;
    site.app.post(&format!("{path}/cancel"), &json!({})).await.expect(202);
    site.app.eventually(&path, |job| job["data"]["status"] == "CANCELLED").await;
    assert_eq!(left_over(), Vec::<String>::new());
    body["timeout"] = 3.into();
    let late = site.run(&body).await;
    assert_eq!(
        (statuses(&late)[0], late["reason"].as_str().unwrap()),
        ("FAILED", "the job was not done within 3 s")
    );
    assert_eq!(left_over(), Vec::<String>::new());
    let log = site.log(&late).await;
    assert!(log.contains("fatal: [127.0.0.1]: FAILED! => ") && log.contains("not done within 3 s"), "{log}");
}

/// Directories of this process's runs.
fn left_over() -> Vec<String> {
    let begin = format!("signet-job-{}-", std::process::id());
    let entries = std::fs::read_dir("/dev/shm").unwrap();
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(&begin)).collect()
}
