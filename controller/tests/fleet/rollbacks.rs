//! Back to a commit that was deployed before, on every host.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::deploys::{Site, statuses};
use super::held_jobs::{ended, waiting};
use super::visitor::Visitor;

async fn back(site: &Site, id: &Value, commit: &str) -> (Value, String) {
    let path = format!("/api/v1/jobs/{}/rollback?wait=60", id.as_str().unwrap());
    let made = site.app.post(&path, &json!({ "commit": commit })).await.expect(200);
    site.shown(made["data"]["job_id"].as_str().unwrap()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_rabbitmq_a_job_goes_back() {
    let site = Site::start().await;
    let _agent = site.agent("h1").await;
    let mut body = site.body("app", json!([{ "group": "web" }]));
    body["strategy"] = "releases".into();
    let current = || std::fs::read_to_string(site.place().join("app/current/file")).unwrap();
    let (first, log) = site.run(&body).await;
    assert_eq!(statuses(&first), ["SUCCESS"], "{first} {log}");
    let one = first["commit"].as_str().unwrap();
    let two = site.commit("two");
    let (second, log) = site.run(&body).await;
    assert_eq!(second["commit"], json!(two), "{second} {log}");
    assert_eq!(current(), "two");

    let (job, log) = back(&site, &second["job_id"], one).await;
    assert_eq!(statuses(&job), ["SUCCESS"], "{job} {log}");
    assert_eq!((job["commit"].as_str().unwrap(), current().as_str()), (one, "one"));
    assert_eq!(job["rollback"], json!({ "commit": one, "job_id": second["job_id"] }));
    let preflight = log.find(&format!("PREFLIGHT [{one}]")).expect("the preflight is told");
    assert!(preflight < log.find("PLAY [all]").unwrap(), "{log}");

    // A commit that nobody deployed there, and what is no commit.
    let three = site.commit("three");
    let path = format!("/api/v1/jobs/{}/rollback", second["job_id"].as_str().unwrap());
    for bad in [three.as_str(), "main", &one[..12], "--help", ""] {
        let refused = site.app.post(&path, &json!({ "commit": bad })).await.expect(422);
        assert!(refused["error"]["details"]["commit"].is_string(), "{bad}: {refused}");
    }
    let unknown = site.app.post("/api/v1/jobs/job_999/rollback", &json!({ "commit": one })).await;
    assert_eq!(unknown.status, 404, "{}", unknown.text);
    // A retry of the way back goes back as well.
    let path = format!("/api/v1/jobs/{}/retry?wait=60", job["job_id"].as_str().unwrap());
    let retried = site.app.post(&path, &json!({})).await.expect(200);
    let (job, log) = site.shown(retried["data"]["job_id"].as_str().unwrap()).await;
    assert_eq!((job["commit"].as_str().unwrap(), current().as_str()), (one, "one"), "{log}");
}

fn shell(at: &Path, text: &str) {
    let done = Command::new("sh").current_dir(at).args(["-ec", text]).output().unwrap();
    assert!(done.status.success(), "{done:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_rabbitmq_nothing_changes_where_a_host_lacks_the_commit() {
    let site = Site::start().await;
    let _agent = site.agent("h1").await;
    let body = site.body("app", json!([{ "host": "h1" }]));
    let (first, log) = site.run(&body).await;
    assert_eq!(statuses(&first), ["SUCCESS"], "{log}");
    let one = first["commit"].as_str().unwrap().to_owned();
    // The repository forgets the commit, and so does the host.
    let forget = "git reflog expire --expire=now --all && git gc -q --prune=now";
    let identity = "git -c user.name=t -c user.email=t@example.com";
    let anew = format!(
        "git checkout -q --orphan new && {identity} commit -q -m new && git branch -q -M new main && {forget}"
    );
    shell(&site.dir.path().join("repo"), &anew);
    site.commit("four");
    let (second, log) = site.run(&body).await;
    assert_eq!(statuses(&second), ["SUCCESS"], "{log}");
    let app = site.place().join("app");
    shell(&app, &format!("rm -f .git/FETCH_HEAD .git/ORIG_HEAD; {forget}"));
    let lost = Command::new("git").current_dir(&app).args(["cat-file", "-e", &one]).status().unwrap();
    assert!(!lost.success(), "the host still has {one}");
    let (job, log) = back(&site, &second["job_id"], &one).await;
    assert_eq!(statuses(&job), ["FAILED"], "{job} {log}");
    let why = job["targets"][0]["reason"].as_str().unwrap();
    assert!(why.starts_with("nothing was changed"), "{why}");
    assert_eq!(std::fs::read_to_string(app.join("file")).unwrap(), "four");
}

/// What people agree to is what every host can do: they are asked when all have the commit, and nothing changes before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_rabbitmq_the_way_back_waits_for_others() {
    let site = Site::start().await;
    let _agents = (site.agent("h1").await, site.agent("h2").await);
    let mut body = site.body("app", json!([{ "group": "web" }]));
    // Both are on this machine, and deployments do not wait for one another: only the questions do, which go out at once.
    body["run_mode"] = "serial".into();
    let (first, log) = site.run(&body).await;
    assert_eq!(statuses(&first), ["SUCCESS", "SUCCESS"], "{log}");
    let one = first["commit"].as_str().unwrap();
    site.commit("two");
    let (second, log) = site.run(&body).await;
    assert_eq!(statuses(&second), ["SUCCESS", "SUCCESS"], "{log}");
    let rule = json!({ "target": { "group": "web" }, "approvals": 1, "kinds": ["deploy"] });
    site.app.post("/api/approval-rules", &rule).await.expect(201);
    let bob = Visitor::new(&site.app, "bob", "operator").await;

    let path = format!("/api/v1/jobs/{}/rollback", second["job_id"].as_str().unwrap());
    let made = site.app.post(&path, &json!({ "commit": one })).await.expect(202);
    let id = made["data"]["job_id"].as_str().unwrap();
    let job = waiting(&site, id).await;
    let (_, log) = site.shown(id).await;
    let turn = |log: &str, text: &str| log.find(text).unwrap_or_else(|| panic!("no {text}: {log}"));
    assert!(turn(&log, &format!("PREFLIGHT [{one}]")) < turn(&log, "waits until one other person"), "{log}");
    let asked = "SELECT COUNT(*) FROM deliveries WHERE task_id LIKE '%-preflight' AND state = 'succeeded'";
    assert_eq!(site.app.number(asked).await, 2, "they were asked before");
    assert_eq!((&job["commit"], &job["status"]), (&json!(one), &json!("PENDING")), "{job}");
    let current = || std::fs::read_to_string(site.place().join("app/file")).unwrap();
    assert_eq!(current(), "two");

    let path = format!("/api/approvals/{id}");
    let request = bob.get(&site.app, &path).await.expect(200);
    assert_eq!(request["message"]["commit"], one, "{request}");
    let word = json!({ "digest": request["digest"] });
    bob.post(&site.app, &format!("{path}/approve"), &word).await.expect(200);
    let (_, log) = site.shown(id).await;
    assert!(log.contains("approved by bob"), "it is told at once: {log}");
    let (job, log) = ended(&site, id).await;
    assert_eq!(statuses(&job), ["SUCCESS", "SUCCESS"], "{job} {log}");
    assert!(turn(&log, "approved by bob") < turn(&log, "changed: [h"), "{log}");
    assert_eq!(log.matches("approved by").count(), 1, "{log}");
    assert_eq!(current(), "one");
}
