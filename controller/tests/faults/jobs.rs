//! The controller dies while it has a job whose hosts were not sent the deployment: the next one goes on with the same
//! commit, and no host gets it twice.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use signet_common::fault::JobPoint;
use signet_testkit::{Pair, Parts};

use super::world::{Fault, World};

/// A world with a repository.
struct Scene {
    world: World,
    repo: PathBuf,
    _parts: Parts,
}

impl Scene {
    async fn start(point: JobPoint, nth: u32) -> Self {
        let parts = Pair::MariadbRabbitmq.parts().await;
        let fault = Fault { point, nth, stop: false };
        let world = World::start(parts.database_url(), parts.amqp_url().unwrap(), fault).await;
        let repo = world.host.path("repo");
        std::fs::create_dir(&repo).unwrap();
        let scene = Self { world, repo, _parts: parts };
        scene.git(&["init", "-q", "-b", "main"]);
        scene
    }

    fn git(&self, arguments: &[&str]) -> String {
        let identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"];
        let done =
            Command::new("git").current_dir(&self.repo).args(identity).args(arguments).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    /// Where the branch leads from now on.
    fn commit(&self, text: &str) -> String {
        std::fs::write(self.repo.join("file"), text).unwrap();
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", text]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// Asks for the branch on the host, which leaves a mark when it has it.
    async fn deploy(&self) {
        let mark = format!("echo deployed >> {}", self.world.host.path("marks").display());
        let body = json!({ "git_repo": format!("file://{}", self.repo.display()), "git_branch": "main",
            "dest_path": self.world.host.path("srv/app"), "targets": [{ "group": "default" }],
            "strategy": "releases", "activate": [mark] });
        self.world.client.ask_for_job("/api/v1/jobs", &body).await;
    }

    /// The controller dies at the point, and is started again `meanwhile` something has happened.
    async fn restart(&mut self, point: JobPoint, meanwhile: impl FnOnce(&Self)) {
        self.world.dies(point).await;
        meanwhile(self);
        self.world.program(point).start(None);
    }

    /// How a job ended, its log, and how often the host was deployed to by now.
    async fn end(&self, id: &str) -> (Value, String, usize) {
        let job = self.world.client.job(id).await;
        let log = self.world.client.text(&format!("/api/v1/jobs/{id}/logs")).await.unwrap();
        assert_eq!(job["status"], "SUCCESS", "{job} {log}");
        (job, log, self.world.host.starts("deployed"))
    }

    fn current(&self) -> String {
        std::fs::read_to_string(self.world.host.path("srv/app/current/file")).unwrap()
    }
}

/// How often a log has each of these.
fn times<const N: usize>(log: &str, texts: [&str; N]) -> [usize; N] {
    texts.map(|text| log.matches(text).count())
}

async fn dies_on_the_way_there(point: JobPoint) {
    let mut scene = Scene::start(point, 1).await;
    let one = scene.commit("one");
    scene.deploy().await;
    // What was pinned counts, whatever the branch becomes.
    scene.restart(point, |scene| drop(scene.commit("two"))).await;
    let (job, log, deployed) = scene.end("job_1").await;
    assert_eq!((&job["commit"], scene.current().as_str(), deployed), (&json!(one), "one", 1), "{job} {log}");
    assert_eq!(times(&log, ["PLAY [all]", "changed: [", "PLAY RECAP"]), [1; 3], "{log}");
}

/// `nth`: how often the point was passed before, by what is gone back from.
async fn dies_on_the_way_back(point: JobPoint, nth: u32) {
    let mut scene = Scene::start(point, nth).await;
    let one = scene.commit("one");
    scene.deploy().await;
    scene.end("job_1").await;
    scene.commit("two");
    scene.deploy().await;
    let (_, log, deployed) = scene.end("job_2").await;
    assert_eq!((scene.current().as_str(), deployed), ("two", 2), "{log}");
    scene.world.client.ask_for_job("/api/v1/jobs/job_2/rollback", &json!({ "commit": one })).await;
    scene.restart(point, |_| {}).await;
    let (job, log, deployed) = scene.end("job_3").await;
    assert_eq!((&job["commit"], scene.current().as_str(), deployed), (&json!(one), "one", 3), "{job} {log}");
    let texts = ["PREFLIGHT [", "PLAY [all]", "changed: [", "PLAY RECAP"];
    assert_eq!(times(&log, texts), [1; 4], "{log}");
}

#[test]
fn every_point_has_its_test() {
    assert_eq!(JobPoint::ALL, [JobPoint::Pinned, JobPoint::Sending, JobPoint::Asked]);
}

mod mariadb_rabbitmq {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_commit_is_pinned_and_nothing_is_sent() {
        dies_on_the_way_there(JobPoint::Pinned).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_deployment_is_written_and_not_committed() {
        dies_on_the_way_there(JobPoint::Sending).await;
    }

    /// Two jobs sent their own deployments before.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_question_is_written_and_not_committed() {
        dies_on_the_way_back(JobPoint::Sending, 3).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_host_has_the_commit_and_nothing_is_sent() {
        dies_on_the_way_back(JobPoint::Asked, 1).await;
    }
}
