//! Agents, and their drivers alone, that die at each step of a deployment with releases: the job ends, what serves is a whole
//! release, and the next job finds nothing in its way.

use std::fs;
use std::path::Path;

use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use signet_common::fault::DeployPoint;
use signet_testkit::eventually;

use super::agent::Agent;
use super::deploys::{Site, statuses};
use super::held_jobs::ended;
use super::support::PATIENCE;

/// Who dies at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dies {
    /// The process that deploys; its agent sees it.
    Driver,
    /// The agent with all that is its own, while the driver stands still at the point.
    Agent,
}

/// One host for each point, with a place of its own.
struct Host<'a> {
    site: &'a Site,
    point: DeployPoint,
    agent: Agent,
    body: Value,
}

impl<'a> Host<'a> {
    async fn new(site: &'a Site, point: DeployPoint) -> Self {
        let agent = site.agent(point.name()).await;
        let mut body = site.body(point.name(), json!([{ "host": point.name() }]));
        // A release that is complete says so in its last build hook.
        let more = json!({
            "strategy": "releases", "keep": 1, "shared": ["log"],
            "build": ["sleep 0", "echo yes > complete"], "activate": ["test -f complete"],
            "health": { "probe": { "command": "test -f ../../current/complete" }, "timeout": 5, "attempts": 1 },
        });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Self { site, point, agent, body }
    }

    /// What serves: the text of a release that is whole.
    fn serves(&self) -> String {
        let current = self.site.place().join(self.point.name()).join("current");
        let release = fs::read_link(&current).unwrap_or_else(|e| panic!("{:?}: {e}", self.point));
        assert!(release.starts_with("releases"), "{:?}: {}", self.point, release.display());
        let read =
            |file: &str| fs::read_to_string(current.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert_eq!(read("complete"), "yes\n", "{:?}: half a release serves", self.point);
        read("file")
    }

    async fn succeeds(&self, commit: &str, text: &str) {
        let (job, log) = self.site.run(&self.body).await;
        assert_eq!(statuses(&job), ["SUCCESS"], "{:?}: {job} {log}", self.point);
        assert_eq!(job["targets"][0]["commit"], commit, "{:?}", self.point);
        assert_eq!(self.serves(), text, "{:?}", self.point);
    }

    /// Has the agent start anew, with a wish for its drivers.
    fn restart(&mut self, fault: Option<String>) {
        self.agent.kill();
        self.agent.fault = fault;
        self.agent.spawn();
    }

    /// A deployment that dies; gives its job when it is over.
    async fn dies(&mut self, who: Dies) -> (Value, String) {
        let stop = if who == Dies::Agent { ":1:stop" } else { "" };
        self.restart(Some(format!("{}{stop}", self.point.name())));
        let made = self.site.app.post("/api/v1/jobs", &self.body).await.expect(202);
        let id = made["data"]["job_id"].as_str().unwrap();
        if who == Dies::Agent {
            let what = format!("a driver to stand still at {:?}", self.point);
            eventually(PATIENCE, &what, async || stands_still(&self.agent.data)).await;
            self.restart(None);
        }
        ended(self.site, id).await
    }

    /// The whole of it, from the first release on.
    async fn dies_and_comes_back(&mut self, who: Dies, new: &str) {
        let (job, log) = self.dies(who).await;
        assert_eq!(
            (&job["status"], statuses(&job)),
            (&json!("FAILED"), vec!["FAILED"]),
            "{:?}: {log}",
            self.point
        );
        let why = job["targets"][0]["reason"].as_str().unwrap();
        assert!(!why.is_empty() && log.contains("fatal: ["), "{:?}: {why} {log}", self.point);
        let place = |wanted| DeployPoint::ALL.iter().position(|point| *point == wanted);
        let switched = place(self.point) > place(DeployPoint::BeforeSwitch);
        assert_eq!(self.serves(), if switched { "new" } else { "old" }, "{:?}: {log}", self.point);
        if who == Dies::Driver {
            self.restart(None);
        }
        self.succeeds(new, "new").await;
    }
}

/// Whether a driver of this agent, which writes its report into the agent's directory, is stopped.
fn stands_still(data: &Path) -> Option<()> {
    let is = |process: &Path| -> Option<()> {
        let arguments = fs::read(process.join("cmdline")).ok()?;
        let status = fs::read_to_string(process.join("status")).ok()?;
        let driver = String::from_utf8_lossy(&arguments).contains("--signet-deploy");
        let mut open = fs::read_dir(process.join("fd")).ok()?.flatten();
        let ours = open.any(|file| fs::read_link(file.path()).is_ok_and(|to| to.starts_with(data)));
        (driver && ours && status.contains("State:\tT")).then_some(())
    };
    fs::read_dir("/proc").unwrap().find_map(|entry| is(&entry.ok()?.path()))
}

async fn each_step(who: Dies) {
    let site = Site::start().await;
    let old = site.commit("old");
    // A few at a time: each makes its keys first.
    let hosts = stream::iter(DeployPoint::ALL).map(|point| Host::new(&site, *point)).buffered(3);
    let mut hosts: Vec<Host<'_>> = hosts.collect().await;
    join_all(hosts.iter().map(|host| host.succeeds(&old, "old"))).await;
    let new = site.commit("new");
    join_all(hosts.iter_mut().map(|host| host.dies_and_comes_back(who, &new))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_rabbitmq_a_driver_dies_at_each_step_of_a_job() {
    each_step(Dies::Driver).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_rabbitmq_an_agent_dies_at_each_step_of_a_job() {
    each_step(Dies::Agent).await;
}
