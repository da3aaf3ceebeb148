//! Host by host over SSH: canaries, batches, pauses and budgets.

use serde_json::{Value, json};
use signet_testkit::sshd::{Account, Sshd};
use signet_testkit::{Pair, eventually, on_both_pairs};

use crate::site::{Site, statuses, with_password};
use crate::support::PATIENCE;

on_both_pairs!(wave_by_wave, a_cancel_ends_a_pause_over_ssh);

const PASSWORD: &str = "right-password";

fn server() -> Sshd {
    Sshd::start(&[Account { name: "u", password: Some(PASSWORD), key: None }])
}

fn body(site: &Site, targets: &[Value], options: Value) -> Value {
    let mut body = site.body(targets);
    body.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    body
}

async fn wave_by_wave(pair: Pair) {
    if !Sshd::possible() {
        return;
    }
    let site = Site::start(pair).await;
    let server = server();
    let good = |host: &str| with_password(host, server.port, "u", PASSWORD);
    let bad = with_password("127.0.0.2", server.port, "u", "wrong-password");
    let all = [good("127.0.0.1"), bad.clone(), good("127.0.0.3")];
    let stopped = site.run(&body(&site, &all, json!({ "canary": ["127.0.0.2"], "max_failures": 9 }))).await;
    let log = site.log(&stopped).await;
    assert_eq!(statuses(&stopped), ["SKIPPED", "UNREACHABLE", "SKIPPED"], "{log}");
    assert_eq!(stopped["reason"], "canary 127.0.0.2 failed: 2 hosts are skipped");
    let told = |log: &str, line: &str| log.lines().any(|l| l == line);
    assert!(
        told(&log, "canary 127.0.0.2 failed: 2 hosts are skipped") && told(&log, "skipping: [127.0.0.3]")
    );
    assert_eq!((log.matches("PLAY [all]").count(), log.matches("PLAY RECAP").count()), (1, 1), "{log}");
    let recap = |log: &str, host: &str, word: &str| {
        let rest = log.split("PLAY RECAP").nth(1).unwrap();
        assert!(rest.lines().any(|l| l.starts_with(host) && l.contains(word)), "no {host} {word}: {log}");
    };
    recap(&log, "127.0.0.1", "skipped=1");
    recap(&log, "127.0.0.2", "unreachable=1");

    let options = json!({ "canary": 1, "batch": 1, "pause": 1, "order": "reverse" });
    let done = site.run(&body(&site, &[good("127.0.0.1"), good("127.0.0.3")], options)).await;
    let log = site.log(&done).await;
    assert_eq!(statuses(&done), ["SUCCESS", "SUCCESS"], "{log}");
    let turn = |line: &str| log.lines().position(|l| l == line).unwrap_or_else(|| panic!("no {line}: {log}"));
    let (first, pause) = (turn("changed: [127.0.0.3]"), turn("pause of 1 s"));
    assert!(first < pause && pause < turn("ok: [127.0.0.1]"), "{log}");
    assert_eq!((log.matches("PLAY [all]").count(), log.matches("PLAY RECAP").count()), (2, 1), "{log}");
    recap(&log, "127.0.0.1", "changed=0");
    recap(&log, "127.0.0.3", "changed=1");

    let options = json!({ "run_mode": "serial", "max_failures": 0 });
    let spent = site.run(&body(&site, &[good("127.0.0.3"), bad, good("127.0.0.1")], options)).await;
    assert_eq!(statuses(&spent), ["SUCCESS", "UNREACHABLE", "SKIPPED"], "{}", site.log(&spent).await);
    assert_eq!(spent["reason"], "1 host failed, and max_failures is 0: 1 host is skipped");
    // The same once more, in the same way.
    let again = site.retry(&spent).await;
    assert_eq!(statuses(&again), ["SUCCESS", "UNREACHABLE", "SKIPPED"]);
}

async fn a_cancel_ends_a_pause_over_ssh(pair: Pair) {
    if !Sshd::possible() {
        return;
    }
    let site = Site::start(pair).await;
    let server = server();
    let targets = ["127.0.0.1", "127.0.0.2"].map(|host| with_password(host, server.port, "u", PASSWORD));
    let asked = body(&site, &targets, json!({ "batch": "50%", "pause": 3_600 }));
    let made = site.app.post("/api/v1/jobs", &asked).await.expect(202);
    let path = format!("/api/v1/jobs/{}", made["data"]["job_id"].as_str().unwrap());
    eventually(PATIENCE, "the pause", async || {
        let log = site.app.get(&format!("{path}/logs")).await.text;
        log.contains("pause of 3600 s").then_some(())
    })
    .await;
    site.app.post(&format!("{path}/cancel"), &json!({})).await.expect(202);
    let over = site.app.eventually(&path, |job| job["data"]["finished_at"].is_string()).await;
    assert_eq!(statuses(&over["data"]), ["SUCCESS", "CANCELLED"]);
    assert_eq!(over["data"]["status"], "CANCELLED");
}
