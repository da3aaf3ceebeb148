//! The peer: a plain controller and agent in Python, in `bench/peer`, as document 002 describes them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use uuid::Uuid;

use crate::api::Api;
use crate::process::{Running, command};
use crate::stage::{Ground, Stored};

/// The peer's controller and its one agent.
pub(crate) struct Peer {
    pub(crate) api: Api,
    _agent: Running,
    _controller: Running,
    ground: Ground,
}

impl Peer {
    /// Starts both and waits until the agent is online.
    pub(crate) async fn start(cache: &Path, hostname: &str) -> anyhow::Result<Self> {
        let python = python(cache)?;
        let ground = Ground::new().await?;
        let database = ground.database.url().replacen("mysql://", "mysql+pymysql://", 1);
        let log = |name: &str| ground.path().join(format!("{name}.log"));
        // -B: the sources' directory stays as it is.
        let mut controller = command(&python);
        controller
            .arg("-B")
            .arg(source("controller.py"))
            .env("PEER_DATABASE_URL", database)
            .env("PEER_AMQP_URL", ground.vhost.url());
        let (controller, base, _) = Running::start_until(controller, &log("controller"), "peer: ready on ")?;
        let mut agent = command(&python);
        agent
            .arg("-B")
            .arg(source("agent.py"))
            .args(["--controller", &base, "--hostname", hostname])
            .env("PEER_AMQP_URL", ground.vhost.url());
        let agent = Running::start(agent, &log("agent"))?;
        let api = Api::new(&base, None)?;
        api.wait_online(1).await.with_context(|| agent.last_words())?;
        Ok(Self { api, _agent: agent, _controller: controller, ground })
    }

    /// Counts the commands that have succeeded.
    pub(crate) async fn results(&self) -> anyhow::Result<Stored> {
        let count = "SELECT COUNT(*) FROM task_results WHERE exit_code = 0";
        Stored::open(&self.ground.database, count).await
    }
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peer").join(name)
}

/// The Python with what `requirements.txt` names, made once and again when that file has changed.
fn python(cache: &Path) -> anyhow::Result<PathBuf> {
    let requirements = source("requirements.txt");
    let wanted = std::fs::read(&requirements)?;
    let venv = cache.join("venv");
    let (python, installed) = (venv.join("bin/python"), venv.join("requirements.txt"));
    if std::fs::read(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    eprintln!("installing the peer's libraries, once");
    std::fs::create_dir_all(cache)?;
    succeed(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
    let quiet = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
    succeed(Command::new(&python).args(quiet).arg(&requirements))?;
    // Written last: what broke off half-way is made again.
    let new = venv.join(Uuid::new_v4().to_string());
    std::fs::write(&new, wanted)?;
    std::fs::rename(new, installed)?;
    Ok(python)
}

fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}
