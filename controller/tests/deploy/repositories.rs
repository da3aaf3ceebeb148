//! What is known of repositories, and what a job may say beside it.

use http::Method;
use serde_json::{Value, json};
use signet_common::PayloadType;
use signet_common::deploy::{Credential, Deploy, Phase};
use signet_common::seal::Binding;
use signet_controller::store::Statement;
use signet_testkit::ssh::SshKey;
use signet_testkit::sshd::{Account, Sshd};
use signet_testkit::{Pair, on_both_pairs};

use crate::backend::holds;
use crate::leases::{asked, body, with_hanging_ansible};
use crate::site::Site;
use crate::support::dump::dump;
use crate::support::fake_agent::{FakeAgent, exited};
use crate::support::{Answer, TestApp};

on_both_pairs!(
    entries_come_and_go_and_show_no_secret,
    an_entry_that_makes_no_sense_is_refused,
    a_job_keeps_to_what_is_known,
    what_is_known_later_counts_for_what_waits,
    a_credential_is_sealed_to_one_host,
    a_deploy_key_pins_its_host
);

const SIGNER: &str = "alice ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

async fn patch(app: &TestApp, path: &str, body: &Value) -> Answer {
    TestApp::send(app.request(Method::PATCH, path).json(body)).await
}

fn fields(answer: &Value) -> Vec<String> {
    let mut fields: Vec<String> = answer["error"]["details"].as_object().unwrap().keys().cloned().collect();
    fields.sort();
    fields
}

async fn entries_come_and_go_and_show_no_secret(pair: Pair) {
    let app = TestApp::start(pair).await;
    let dir = tempfile::tempdir().unwrap();
    let key = SshKey::ed25519(dir.path(), "deploy");
    let mut seen = String::new();
    let body = json!({ "url": "git@git.example.com:team/", "allowed_signers": SIGNER, "credential":
        { "kind": "deploy_key", "private_key": key.private(), "known_hosts": "git.example.com ssh-ed25519 AAAA" } });
    let made = app.post("/api/repositories", &body).await;
    seen += &made.text;
    let made = made.expect(201);
    let fingerprint = made["credential"]["fingerprint"].as_str().unwrap();
    assert!(fingerprint.starts_with("SHA256:"), "{made}");
    assert_eq!(made["credential"]["kind"], "deploy_key");
    // The same address in other words.
    for url in ["git@GIT.example.com:team//", "git@git.example.com:team/"] {
        let again = json!({ "url": url, "allowed_signers": SIGNER });
        app.post("/api/repositories", &again).await.expect(409);
    }
    let token = json!({ "kind": "https_token", "token": "planted-t0ken", "username": "ci" });
    let other = json!({ "url": "https://git.example.com/team/app.git", "credential": token });
    let other = app.post("/api/repositories", &other).await.expect(201);
    let listed = app.get("/api/repositories").await;
    seen += &listed.text;
    assert_eq!(listed.expect(200).as_array().unwrap().len(), 2);
    let path = format!("/api/repositories/{}", other["id"].as_str().unwrap());
    // What is not there stays; null takes it away.
    let changed = patch(&app, &path, &json!({ "allowed_signers": SIGNER })).await.expect(200);
    assert_eq!(
        (&changed["credential"]["username"], &changed["allowed_signers"]),
        (&json!("ci"), &json!(SIGNER))
    );
    let changed = patch(&app, &path, &json!({ "credential": null })).await.expect(200);
    assert_eq!((&changed["credential"], &changed["allowed_signers"]), (&json!(null), &json!(SIGNER)));
    // A secret goes to no other address.
    patch(&app, &path, &json!({ "url": "https://evil.example.com/" })).await.expect(400);
    patch(&app, &path, &json!({ "credential": { "kind": "deploy_key", "private_key": key.private() } }))
        .await
        .expect(400);
    assert_eq!(app.delete(&path).await.status, 204);
    for answer in [app.get(&path).await, app.delete(&path).await, patch(&app, &path, &json!({})).await] {
        answer.expect(404);
    }
    seen += &app.get("/api/audit").await.text;
    for action in ["repository.add", "repository.change", "repository.remove"] {
        assert!(seen.contains(action), "{action}");
    }
    let rows: Vec<(Option<Vec<u8>>,)> =
        app.db().all(Statement::same("SELECT sealed FROM repositories").query()).await.unwrap();
    let sealed: Vec<u8> = rows.into_iter().filter_map(|(sealed,)| sealed).flatten().collect();
    assert!(!sealed.is_empty());
    seen += &String::from_utf8_lossy(&sealed);
    let line = key.private().lines().nth(2).unwrap()[..40].to_owned();
    assert!(!seen.contains("planted-t0ken") && !seen.contains(&line));
}

async fn an_entry_that_makes_no_sense_is_refused(pair: Pair) {
    let app = TestApp::start(pair).await;
    let dir = tempfile::tempdir().unwrap();
    let locked = SshKey::locked(dir.path(), "locked", "phrase").private();
    for (body, word) in [
        (json!({ "url": "https://h/x" }), "credential"),
        (json!({ "allowed_signers": SIGNER }), "url"),
        (json!({ "url": "https://u:planted@h/x", "allowed_signers": SIGNER }), "url"),
        (json!({ "url": "https://h/a/../b/", "allowed_signers": SIGNER }), "url"),
        (json!({ "url": "https://h/", "allowed_signers": "nobody" }), "allowed_signers"),
        (json!({ "url": "https://h/", "signers": SIGNER }), "body"),
        (
            json!({ "url": "git@h:x", "credential": { "kind": "deploy_key", "private_key": locked } }),
            "passphrase",
        ),
        (
            json!({ "url": "git@h:x", "credential": { "kind": "https_token", "token": "planted" } }),
            "credential.kind",
        ),
    ] {
        let answer = app.post("/api/repositories", &body).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.text);
        assert!(answer.text.contains(word) && !answer.text.contains("planted"), "{body}: {}", answer.text);
    }
}

async fn a_job_keeps_to_what_is_known(pair: Pair) {
    let app = TestApp::start(pair).await;
    let body = json!({ "url": "https://git.example.com/team/", "allowed_signers": SIGNER });
    app.post("/api/repositories", &body).await.expect(201);
    FakeAgent::enrol(&app, "h1", "web").await;
    let job = |url: &str, change: Value| {
        let mut body = json!({ "git_repo": url, "dest_path": "/srv/x", "targets": [{ "host": "h1" }] });
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        body
    };
    let over_ssh =
        json!([{ "host": "192.0.2.1", "username": "u", "auth": { "type": "password", "password": "x" } }]);
    let known = "https://GIT.example.com:443/team/app.git";
    // Signatures can't be turned off, by another list or another way.
    let own = app.post("/api/v1/jobs", &job(known, json!({ "allowed_signers": SIGNER }))).await.expect(422);
    assert_eq!(fields(&own), ["allowed_signers"]);
    let ssh = app.post("/api/v1/jobs", &job(known, json!({ "targets": over_ssh }))).await.expect(422);
    assert_eq!(fields(&ssh), ["targets"]);
    let strays = job("https://git.example.com/x/../team/app", json!({}));
    assert_eq!(fields(&app.post("/api/v1/jobs", &strays).await.expect(422)), ["git_repo"]);
    for way in ["x/../team/app", "x/%2e%2E/team/app", "./team/app"] {
        let strays = job(&format!("https://git.example.com/{way}"), json!({ "targets": over_ssh }));
        assert_eq!(fields(&app.post("/api/v1/jobs", &strays).await.expect(422)), ["git_repo"], "{way}");
    }
    app.post("/api/v1/jobs", &job(known, json!({}))).await.expect(202);
    // What is not known may bring its own.
    let token = json!({ "kind": "https_token", "token": "planted-t0ken" });
    let own = json!({ "allowed_signers": SIGNER, "credential": token, "submodules": true, "filters": true });
    let made = app.post("/api/v1/jobs", &job("https://h.example.com/x", own.clone())).await.expect(202);
    let shown = app.get(&format!("/api/v1/jobs/{}", made["data"]["job_id"].as_str().unwrap())).await;
    assert!(!shown.text.contains("planted-t0ken"));
    let shown = shown.expect(200)["data"].take();
    assert_eq!(
        (&shown["credential"], &shown["submodules"]),
        (&json!("https_token"), &json!(true)),
        "{shown}"
    );
    // Ansible understands none of it.
    let mut all = job("https://h.example.com/x", own);
    all["targets"] = over_ssh;
    let wrong = app.post("/api/v1/jobs", &all).await.expect(422);
    assert_eq!(fields(&wrong), ["allowed_signers", "credential", "filters", "submodules"]);
    let wrong = json!({ "credential": { "kind": "deploy_key", "private_key": "x" }, "allowed_signers": "",
        "submodules": 1, "filters": "yes" });
    let wrong = app.post("/api/v1/jobs", &job("https://h.example.com/x", wrong)).await.expect(422);
    let wanted = ["allowed_signers", "credential.kind", "credential.private_key", "filters", "submodules"];
    assert_eq!(fields(&wrong), wanted);
    let password = app.post("/api/v1/jobs", &job("https://u:planted@h/x", json!({}))).await;
    assert!(
        password.status == 422
            && password.text.contains("`credential`")
            && !password.text.contains("planted")
    );
}

/// Over SSH nothing is checked: what came to be known while a job waited for its place is looked at before it begins.
async fn what_is_known_later_counts_for_what_waits(pair: Pair) {
    let dir = tempfile::tempdir().unwrap();
    let app = with_hanging_ansible(pair, dir.path()).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    let first = json!({ "git_repo": "https://h/x.git", "git_branch": "0".repeat(40), "dest_path": "/srv/a",
        "targets": [{ "host": "h1" }] });
    let first = asked(&app, &first).await;
    let deploy = agent.next_deploy().await;
    agent.accepted(&deploy.jti).await;
    let mut waiting = Vec::new();
    for (repository, path) in [("https://h/signed", "/srv/a/b"), ("https://h/other", "/srv/a/c")] {
        let mut body = body("h1");
        body["git_repo"] = repository.into();
        body["dest_path"] = path.into();
        waiting.push(asked(&app, &body).await);
    }
    let known = json!({ "url": "https://h/signed", "allowed_signers": SIGNER });
    app.post("/api/repositories", &known).await.expect(201);
    let rule = json!({ "target": { "group": "web" }, "approvals": 1 });
    app.post("/api/approval-rules", &rule).await.expect(201);
    agent.result(&deploy.jti, exited(0, "", "")).await;
    app.eventually(&first, |job| job["data"]["status"] == "SUCCESS").await;
    for (path, word) in waiting.iter().zip(["needs signatures", "need approval"]) {
        let over = app.eventually(path, |job| job["data"]["status"] == "FAILED").await;
        let why = &over["data"]["targets"][0]["reason"];
        assert!(why.as_str().unwrap().contains(word), "{over}");
        assert!(app.get(&format!("{path}/logs")).await.text.contains(word));
        // Nobody sent `targets` this time.
        let again = app.post(&format!("{path}/retry"), &json!({})).await.expect(409);
        assert!(again.to_string().contains(word), "{again}");
        let back = json!({ "commit": "0".repeat(40) });
        let status = app.post(&format!("{path}/rollback"), &back).await.status;
        assert_eq!(status, if word == "needs signatures" { 409 } else { 422 });
    }
}

/// Secrets, and what the search for them must find.
const TOKEN: &str = "planted/\"t0ken&known";
const OWN: &str = "planted/\"t0ken&own";
const LEAK: &str = "planted-leak";

/// The next deployment that an agent is asked for.
async fn next_deploy(agent: &mut FakeAgent) -> Deploy {
    loop {
        let message = agent.next().await;
        if message.kind() == PayloadType::Deploy {
            return message.parse().unwrap().into_inner();
        }
    }
}

async fn a_credential_is_sealed_to_one_host(pair: Pair) {
    let app = TestApp::start(pair).await;
    let (mut one, mut two) =
        (FakeAgent::enrol(&app, "h1", "web").await, FakeAgent::enrol(&app, "h2", "web").await);
    let _three = FakeAgent::enrol(&app, "h3", "web").await;
    app.change("UPDATE agents SET sealing_key = 'AAAA' WHERE hostname = 'h3'").await;
    let token = |token: &str| json!({ "kind": "https_token", "token": token, "username": LEAK });
    let known =
        json!({ "url": "https://git.example.com/", "credential": token(TOKEN), "allowed_signers": SIGNER });
    app.post("/api/repositories", &known).await.expect(201);
    // A commit needs no repository to be known.
    let body = json!({ "git_repo": "https://git.example.com/team/app.git", "git_branch": "a".repeat(40),
        "dest_path": "/srv/x", "targets": [{ "group": "web" }], "filters": true });
    let made = app.post("/api/v1/jobs", &body).await.expect(202);
    let own = json!({ "git_repo": "https://h.example.com/x", "git_branch": "b".repeat(40), "dest_path": "/srv/y",
        "targets": [{ "host": "h1" }], "credential": token(OWN) });
    let (first, second) = (next_deploy(&mut one).await, next_deploy(&mut two).await);
    for (agent, deploy) in [(&one, &first), (&two, &second)] {
        deploy.check().unwrap();
        assert_eq!((&deploy.aud, deploy.allowed_signers.as_deref()), (&vec![agent.id.clone()], Some(SIGNER)));
        assert!(deploy.filters && !deploy.submodules);
        let binding = Binding { jti: &deploy.jti, agent: &agent.id, field: Credential::FIELD };
        let opened =
            |deploy: &Deploy| agent.sealing.open(&deploy.credential.as_ref().unwrap().sealed, binding);
        assert_eq!(opened(deploy).unwrap(), TOKEN.as_bytes());
        let other = if deploy.jti == first.jti { &second } else { &first };
        assert!(opened(other).is_err());
    }
    // One without a good key fails alone, and says why.
    let path = format!("/api/v1/jobs/{}", made["data"]["job_id"].as_str().unwrap());
    let shown = app.eventually(&path, |job| job["data"]["targets"][2]["status"] == "FAILED").await;
    let why = shown["data"]["targets"][2]["reason"].as_str().unwrap();
    assert!(why.contains("no credential can be sealed"), "{why}");
    app.post("/api/v1/jobs", &own).await.expect(202);
    assert_eq!(next_deploy(&mut one).await.credential.unwrap().username.as_deref(), Some(LEAK));
    let lies = dump(app.parts.database_url());
    for secret in [TOKEN, OWN] {
        assert!(!holds(&lies, secret), "{secret}");
    }
    assert!(holds(&lies, LEAK), "the search finds nothing");
    app.post(&format!("{path}/cancel"), &json!({})).await.expect(202);
}

/// Without hosts of its own, a deploy key's host must show the controller the key that it showed first.
async fn a_deploy_key_pins_its_host(pair: Pair) {
    if !Sshd::possible() {
        return;
    }
    let site = Site::start(pair).await;
    let key = SshKey::ed25519(site.dir.path(), "deploy");
    let mut server = Sshd::start(&[Account { name: "git", password: None, key: Some(&key.public) }]);
    let url = format!("ssh://git@127.0.0.1:{}{}/repo", server.port, site.dir.path().display());
    let credential = json!({ "kind": "deploy_key", "private_key": key.private() });
    site.app.post("/api/repositories", &json!({ "url": url, "credential": credential })).await.expect(201);
    let mut agent = FakeAgent::enrol(&site.app, "h1", "web").await;
    for (phase, fits) in [(Phase::Deploy, true), (Phase::Resolve, false)] {
        let body = json!({ "git_repo": url, "git_branch": "main", "dest_path": format!("/srv/{fits}"),
            "targets": [{ "host": "h1" }] });
        let made = site.app.post("/api/v1/jobs", &body).await.expect(202);
        let asked = next_deploy(&mut agent).await;
        assert_eq!((asked.phase, asked.commit.is_some()), (phase, fits));
        // Who is asked instead gets what it takes to ask.
        assert!(asked.credential.is_some());
        let path = format!("/api/v1/jobs/{}", made["data"]["job_id"].as_str().unwrap());
        site.app.post(&format!("{path}/cancel"), &json!({})).await.expect(202);
        if fits {
            let noted =
                std::fs::read_to_string(site.app.running.app.settings.data_dir.join("git-known-hosts"));
            assert!(noted.unwrap().contains(&format!("[127.0.0.1]:{}", server.port)));
            server.replace_key();
        }
    }
    let left = std::fs::read_dir("/dev/shm").unwrap().flatten();
    let own = format!("signet-job-{}-", std::process::id());
    assert!(!left.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with(&own)));
}
