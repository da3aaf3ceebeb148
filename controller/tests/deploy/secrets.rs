//! What a job logs in with is seen nowhere: not in answers, the log, messages, arguments, environments or the database.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;
use signet_common::PayloadType;
use signet_common::deploy::{Deploy, Deployed};
use signet_testkit::ssh::SshKey;
use signet_testkit::sshd::{Account, Sshd};
use signet_testkit::{Pair, on_both_pairs};

use crate::backend::{holds, seen_in_files};
use crate::site::{Site, current_ansible, statuses, with_key, with_password};
use crate::support::TestApp;
use crate::support::capturing_bus::CapturingBus;
use crate::support::dump::dump;
use crate::support::fake_agent::{FakeAgent, exited};
use crate::support::watched::{Log, Processes};

on_both_pairs!(nothing_secret_is_seen, nothing_secret_is_seen_with_a_current_ansible);

/// What the search must find: it stands where it may be seen.
const LEAK: &str = "planted-leak";

async fn nothing_secret_is_seen(pair: Pair) {
    if Sshd::possible() {
        nothing_is_seen(pair, None).await;
    }
}

async fn nothing_secret_is_seen_with_a_current_ansible(pair: Pair) {
    if let Some(ansible) = current_ansible().filter(|_| Sshd::possible()) {
        nothing_is_seen(pair, Some(ansible)).await;
    }
}

/// An agent to which everything is easy: it says that each deployment succeeded.
async fn agrees(mut agent: FakeAgent, commit: String) -> Infallible {
    loop {
        let message = agent.next().await;
        if message.kind() == PayloadType::Deploy {
            let deploy: Deploy = message.parse().unwrap().into_inner();
            let deployed = Deployed { commit: Some(commit.parse().unwrap()), ..Deployed::default() };
            let mut result = exited(0, "", "");
            result.deploy = Some(Box::new(deployed));
            agent.accepted(&deploy.jti).await;
            agent.result(&deploy.jti, result).await;
        }
    }
}

async fn nothing_is_seen(pair: Pair, ansible: Option<PathBuf>) {
    let log = Log::keep();
    let parts = pair.parts().await;
    let bus = Arc::new(CapturingBus::new(parts.controller_bus().await));
    let part = Site::part(ansible.as_ref());
    let app = TestApp::start_on(parts, bus.clone(), |settings| Site::allow(settings, ansible)).await;
    let site = Site::on(app, part);
    let agent = FakeAgent::enrol(&site.app, "h1", "web").await;
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
        // By its agent, so that messages are sent.
        json!({ "host": "h1" }),
    ]);
    body["dest_path"] = format!("/srv/{LEAK}").into();
    let processes = Processes::watch();
    let twice = async {
        let job = site.run(&body).await;
        let again = site.retry(&job).await;
        [job, again]
    };
    let jobs = tokio::select! {
        jobs = twice => jobs,
        never = agrees(agent, site.head()) => match never {},
    };
    let mut places = vec![("processes", processes.seen())];
    for job in &jobs {
        assert_eq!(statuses(job)[..2], ["SUCCESS", "SUCCESS"], "{}", site.log(job).await);
        assert_eq!(statuses(job)[4], "SUCCESS", "{}", site.log(job).await);
        let id = job["job_id"].as_str().unwrap();
        for path in ["", "/logs", "/logs?format=json"] {
            let answer = site.app.get(&format!("/api/v1/jobs/{id}{path}")).await;
            places.push(("answers", answer.text.into_bytes()));
        }
    }
    body["dest_path"] = LEAK.into();
    places.push(("answers", site.app.post("/api/v1/jobs", &body).await.text.into_bytes()));
    for path in ["/api/v1/jobs", "/api/audit?limit=1000"] {
        places.push(("answers", site.app.get(path).await.text.into_bytes()));
    }
    // Who asked for what is logged.
    site.app.get(&format!("/api/v1/jobs/{LEAK}")).await;
    places.push(("messages", bus.seen()));
    places.push(("database", dump(site.app.parts.database_url())));
    places.push(("log", log.seen()));
    let line = key.private().lines().nth(2).unwrap().to_owned();
    for secret in [password, passphrase, &line] {
        for (place, bytes) in &places {
            assert!(!holds(bytes, secret), "{secret} is seen in {place}");
        }
        let data = &site.app.running.app.settings.data_dir;
        assert_eq!(seen_in_files(data, secret), Vec::<PathBuf>::new());
    }
    for wanted in ["processes", "answers", "messages", "database", "log"] {
        let found = places.iter().any(|(place, bytes)| *place == wanted && holds(bytes, LEAK));
        assert!(found, "the search finds nothing in {wanted}");
    }
}
