//! Approvals on the command line, with a host that lists an approver of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{Home, Up, code, text, until};

/// An SSH key; its public half lies beside it.
pub(super) fn ssh_key(home: &Home, name: &str) -> PathBuf {
    let path = home.0.path().join(name);
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path).status();
    assert!(made.unwrap().success());
    path
}

pub(super) fn public(key: &Path) -> PathBuf {
    key.with_extension("pub")
}

/// Makes an operator of this name; a token of theirs.
pub(super) fn person(home: &Home, up: &Up, name: &str) -> String {
    let admin = fs::read_to_string(home.data_dir().join("admin.token")).unwrap();
    let send = |path: &str, put: bool, body: Value| -> Value {
        let url = format!("{}{path}", up.url);
        let agent = ureq::Agent::new_with_config(ureq::Agent::config_builder().proxy(None).build());
        let request = if put { agent.put(url) } else { agent.post(url) };
        let request = request.header("content-type", "application/json");
        let request = request.header("authorization", format!("Bearer {}", admin.trim()));
        let answer = request.send(body.to_string()).unwrap().into_body().read_to_string().unwrap();
        serde_json::from_str(&answer).unwrap()
    };
    let credentials =
        json!({ "username": name, "password": "correct horse", "email": format!("{name}@example.com") });
    let made = send("/api/v1/auth/register", false, credentials.clone());
    let id = made["data"]["id"].as_str().unwrap().to_owned();
    send(&format!("/api/v1/users/{id}"), true, json!({ "role": "operator" }));
    let token = send("/api/v1/auth/login", false, credentials)["data"]["token"].clone();
    token.as_str().unwrap().to_owned()
}

/// What waits is no fault.
fn the_doctor_names(home: &Home, up: &Up, task: &str) {
    let (well, found, _) = code(&up.signet(home, &["doctor", "box"]));
    assert!(well == 0 && found.contains("waiting for them: 1 command, the oldest since 20"), "{found}");
    assert!(found.contains(&format!("info  task       {task} waits for approval")), "{found}");
}

#[test]
fn what_is_approved_with_a_key_runs_where_the_host_demands_it() {
    let home = Home::new();
    let (key, other) = (ssh_key(&home, "bobs"), ssh_key(&home, "carols"));
    let policy = home.0.path().join("policy.toml");
    let signer = fs::read_to_string(public(&key)).unwrap();
    fs::write(&policy, format!("[approvers]\ncount = 1\nallowed_signers = \"\"\"\nbob {signer}\"\"\"\n"))
        .unwrap();
    let up = home.up("127.0.0.1:0", &["--group", "prod", "--policy", policy.to_str().unwrap()]);
    let (alice, bob, carol) =
        (person(&home, &up, "alice"), person(&home, &up, "bob"), person(&home, &up, "carol"));
    let signet = |token: &str, args: &[&str]| code(&up.signet(&home, &[&["--token", token], args].concat()));
    let (_, ruled, _) = code(&up.signet(&home, &["approval-rules", "add", "@prod"]));
    assert!(ruled.contains("@prod needs 1"), "{ruled}");
    for (whose, key) in [(&bob, &key), (&carol, &other)] {
        let (added, said, why) = signet(whose, &["approver-keys", "add", public(key).to_str().unwrap()]);
        assert!(added == 0 && said.contains("SHA256:"), "{said}{why}");
    }
    let (refused, _, why) = signet(&bob, &["approver-keys", "add", key.to_str().unwrap()]);
    assert!(refused == 2 && why.contains(".pub"), "{why}");

    // What is requested in the very second in which its log began, a host with approvers does not believe.
    let second = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let begun = second();
    until("the next second", || (second() > begun).then_some(()));
    let ask = || {
        let (_, task, note) = signet(&alice, &["run", "@prod", "--no-wait", "--", "echo agreed"]);
        assert!(note.contains("waits for 1 approvals") && note.contains(task.trim()), "{note}");
        task.trim().to_owned()
    };
    let task = ask();
    assert!(signet(&bob, &["approvals"]).1.contains(&format!("{task}  command  ")));
    the_doctor_names(&home, &up, &task);
    let by =
        |token: &str, key: &Path| signet(token, &["approve", &task, "--yes", "--key", key.to_str().unwrap()]);
    let (selfgiven, _, why) = by(&alice, &key);
    assert!(selfgiven == 3 && why.contains("can't approve"), "{why}");
    let (foreign, _, why) = by(&bob, &other);
    assert!(foreign == 3 && why.contains("no approver key"), "{why}");
    let (asked, _, why) = signet(&bob, &["approve", &task, "--no-sign"]);
    assert!(asked == 2 && why.contains("--yes") && why.contains("echo agreed"), "{why}");
    let (approved, said, shown) = by(&bob, &key);
    assert!(approved == 0 && said.contains("it runs now"), "{said}{shown}");
    assert!(
        shown.contains("echo agreed")
            && shown.contains("hosts     1, by agent id")
            && shown.contains("  box\n"),
        "{shown}"
    );
    let (ran, output, _) = signet(&alice, &["task", "--follow", &task]);
    assert_eq!((ran, output.as_str()), (0, "agreed\n"));
    assert!(signet(&alice, &["task", &task]).1.contains("approved, 1 of 1 by bob"));

    // The controller counts them, the host does not: one without a key, one by a key that it does not list.
    for args in [&["--no-sign"][..], &["--key", other.to_str().unwrap()]] {
        let task = ask();
        let (approved, said, why) = signet(&carol, &[&["approve", &task, "--yes"], args].concat());
        assert!(approved == 0, "{said}{why}");
        let (ran, output, why) = signet(&alice, &["task", "--follow", &task]);
        assert!(ran == 1 && output.is_empty() && why.contains("rejected"), "{output}{why}");
    }

    let task = ask();
    assert_eq!(signet(&bob, &["refuse", &task, "--reason", "not today"]).0, 0);
    let (ended, _, why) = signet(&alice, &["task", "--follow", &task]);
    assert!(ended == 1 && why.contains("not today"), "{why}");
    let (late, _, why) = signet(&bob, &["approve", &task, "--yes", "--no-sign"]);
    assert!(late == 2 && why.contains("refused"), "{why}");
    assert!(!text(&up.signet(&home, &["approvals"]).stdout).contains(&task));
    let all = up.json(&home, &["approvals", "--all"]);
    assert_eq!((&all[0]["state"], all.as_array().unwrap().len()), (&json!("refused"), 4));
    // Its own first command would wait too.
    drop(up);
    let up = home.up("127.0.0.1:0", &["--group", "prod"]);
    assert!(up.said.is_empty(), "{:?}", up.said);
    let rules = up.json(&home, &["approval-rules"]);
    let id = rules[0]["id"].as_str().unwrap();
    assert!(up.signet(&home, &["approval-rules", "remove", id]).status.success());
}
