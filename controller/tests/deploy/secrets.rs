//! What a job logs in with is seen nowhere: not in answers, the log, arguments, environments or the database.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use signet_controller::store::Statement;
use signet_testkit::ssh::SshKey;
use signet_testkit::sshd::{Account, Sshd};
use signet_testkit::{Pair, on_both_pairs};

use crate::site::{Site, current_ansible, statuses, with_key, with_password};

on_both_pairs!(nothing_secret_is_seen, nothing_secret_is_seen_with_a_current_ansible);

/// What the search must find: it stands where it may be seen.
const LEAK: &str = "planted-leak";

/// Every form in which a secret might be seen.
fn forms(secret: &str) -> Vec<String> {
    let json = serde_json::Value::from(secret).to_string();
    let url: String = secret.bytes().map(|b| format!("%{b:02X}")).collect();
    let forms = vec![
        secret.to_owned(),
        json.trim_matches('"').to_owned(),
        STANDARD.encode(secret).trim_end_matches('=').to_owned(),
        secret.replace('"', "%22"),
        url,
    ];
    forms
}

pub(crate) fn seen(place: &[u8], secret: &str) -> bool {
    // A search in text is many times faster than one byte by byte.
    let text = String::from_utf8_lossy(place);
    forms(secret).iter().any(|form| text.contains(form))
}

/// Arguments and environments of everything that runs, until told to stop.
fn watch(stop: Arc<AtomicBool>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = std::collections::BTreeSet::new();
        let own = std::process::id().to_string();
        while !stop.load(Ordering::Relaxed) {
            for entry in std::fs::read_dir("/proc").unwrap().flatten() {
                let name = entry.file_name().into_string().unwrap_or_default();
                if name != own && name.bytes().all(|b| b.is_ascii_digit()) {
                    for file in ["cmdline", "environ"] {
                        all.extend(std::fs::read(entry.path().join(file)).ok().filter(|t| !t.is_empty()));
                    }
                }
            }
            std::thread::yield_now();
        }
        all.into_iter().flatten().collect()
    })
}

async fn nothing_secret_is_seen(pair: Pair) {
    if Sshd::possible() {
        nothing_is_seen(&Site::start(pair).await).await;
    }
}

async fn nothing_secret_is_seen_with_a_current_ansible(pair: Pair) {
    if let Some(ansible) = current_ansible().filter(|_| Sshd::possible()) {
        nothing_is_seen(&Site::with(pair, Some(ansible)).await).await;
    }
}

async fn nothing_is_seen(site: &Site) {
    // Of this run alone: another's `ssh-keygen`, which makes its key, may have its own on its command line.
    let own = uuid::Uuid::new_v4().simple();
    let (password, passphrase) = (format!("planted-\"{own}"), format!("planted-phrase-{own}"));
    let (password, passphrase) = (password.as_str(), passphrase.as_str());
    let key = SshKey::locked(site.dir.path(), "key", passphrase);
    let account = Account { name: "u", password: Some(password), key: Some(&key.public) };
    let (one, two) = (Sshd::start(&[account]), Sshd::start(&[account]));
    let mut body = site.body(&[
        with_password("127.0.0.1", one.port, "u", password),
        with_key("127.0.0.1", two.port, "u", &key.private(), Some(passphrase)),
        // Refused, so that errors are written.
        with_password("127.0.0.2", two.port, LEAK, password),
        with_key("127.0.0.2", one.port, LEAK, &key.private(), Some(passphrase)),
    ]);
    let stop = Arc::new(AtomicBool::new(false));
    let watched = watch(stop.clone());
    let job = site.run(&body).await;
    let again = site.retry(&job).await;
    stop.store(true, Ordering::Relaxed);
    let mut places = vec![("processes", watched.join().unwrap())];
    assert_eq!(statuses(&again)[..2], ["SUCCESS", "SUCCESS"], "{}", site.log(&again).await);
    let id = job["job_id"].as_str().unwrap();
    body["dest_path"] = "relative".into();
    for path in ["", "/logs", "/logs?format=json"] {
        let answer = site.app.get(&format!("/api/v1/jobs/{id}{path}")).await;
        places.push(("answers", answer.text.into_bytes()));
    }
    places.push(("answers", site.app.get("/api/v1/jobs").await.text.into_bytes()));
    places.push(("answers", site.app.get("/api/audit").await.text.into_bytes()));
    places.push(("refusals", site.app.post("/api/v1/jobs", &body).await.text.into_bytes()));
    for statement in ["SELECT sealed FROM job_secrets", "SELECT line FROM job_lines"] {
        let rows: Vec<(Vec<u8>,)> = site.app.db().all(Statement::same(statement).query()).await.unwrap();
        places.push(("database", rows.into_iter().flat_map(|(bytes,)| bytes).collect()));
    }
    for statement in
        ["SELECT username FROM job_targets", "SELECT reason FROM job_targets", "SELECT options FROM jobs"]
    {
        let rows: Vec<(String,)> = site.app.db().all(Statement::same(statement).query()).await.unwrap();
        places.push(("database", rows.into_iter().flat_map(|(text,)| text.into_bytes()).collect()));
    }
    if let Some(file) = site.app.parts.database_url().strip_prefix("sqlite://") {
        places.push(("database", std::fs::read(file.split('?').next().unwrap()).unwrap()));
    }
    let line = key.private().lines().nth(2).unwrap().to_owned();
    for (place, bytes) in &places {
        for secret in [password, passphrase, &line] {
            assert!(!seen(bytes, secret), "{secret} is seen in {place}");
        }
    }
    for wanted in ["processes", "answers", "database"] {
        let found = places.iter().any(|(place, bytes)| *place == wanted && seen(bytes, LEAK));
        assert!(found, "the search finds nothing in {wanted}");
    }
}
