//! `signet up`: controller and local agent in one process.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Seek as _, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::exit;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, Parser as _};
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{User, geteuid, gethostname};
use signet_agent::identity::{DataDir, read_enrolment};
use signet_agent::policy::Policy;
use signet_agent::{AgentConfig, BusSource};
use signet_common::bus::Bus;
use signet_common::bus::memory::MemoryBus;
use signet_common::{AgentId, Hostname};
use signet_controller::settings::sources::Flags;
use signet_controller::settings::{BusSettings, Settings};
use signet_controller::{Running, logging, start, start_on};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::first_command;
use crate::client::{Client, Token};
use crate::context::default_data_dir;
use crate::exit::{Exit, Failure};
use crate::limits::{BLOCKING_THREADS_MAX, UP_WORKERS};

/// Start everything in one process: the controller, its database and an agent for this host
///
/// When ready it sends one signed command through the queue to its own agent, prints the result and then the line
/// `signet: ready on http://ADDR`. The admin's token lies in admin.token in the data directory, where the other commands
/// find it. The variables of signet-controller count here too: SIGNET_DATABASE_URL, SIGNET_AMQP_URL and so on.
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Address to listen on; may be given several times [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    listen: Vec<SocketAddr>,
    /// Keys, database and journal [default: $XDG_DATA_HOME/signet, else ~/.local/share/signet]
    #[arg(long, env = "SIGNET_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// This host's name [default: the system's]
    #[arg(long, value_name = "NAME")]
    hostname: Option<Hostname>,
    /// The group that this host joins at its first start
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Narrows what may run here (TOML); without it: any command as the user who starts this
    #[arg(long, env = "SIGNET_POLICY", value_name = "FILE")]
    policy: Option<PathBuf>,
}

impl Up {
    /// Runs until a signal.
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        let data_dir = self.data_dir.clone().or_else(default_data_dir);
        let data_dir =
            data_dir.ok_or_else(|| Failure::Usage("HOME is not set: give --data-dir DIR".into()))?;
        let settings = self.settings(&data_dir)?;
        self.started(settings, &data_dir).map_err(Failure::Up)?;
        Ok(Exit::Success)
    }

    /// The controller's settings: its own variables, with our flags before them.
    fn settings(&self, data_dir: &Path) -> Result<Settings, Failure> {
        let usage = |e: &dyn std::fmt::Display| Failure::Usage(e.to_string());
        let mut args = vec!["signet up".into(), "--data-dir".into(), data_dir.as_os_str().to_owned()];
        if !self.listen.is_empty() {
            let addresses: Vec<String> = self.listen.iter().map(ToString::to_string).collect();
            args.extend(["--listen".into(), addresses.join(",").into()]);
        }
        // Who names an address beyond this machine here wants it in plain: this program speaks nothing else.
        if self.listen.iter().any(|address| !address.ip().is_loopback()) {
            let allowed = std::env::var("SIGNET_ALLOW_PLAIN").unwrap_or_default();
            args.extend(["--allow-plain".into(), format!("http,{allowed}").into()]);
        }
        // People at a terminal want to hear of trouble only; lapin calls a queue that is not there yet an error.
        if ["SIGNET_LOG_LEVEL", "SIGNET_CONFIG"].iter().all(|name| std::env::var_os(name).is_none()) {
            args.extend(["--log-level".into(), "warn,lapin=off".into()]);
        }
        let settings =
            Flags::try_parse_from(args).map_err(|e| usage(&e))?.settings().map_err(|e| usage(&e))?;
        match settings.tls {
            None => Ok(settings),
            Some(_) => Err(usage(
                &"SIGNET_TLS_CERT is for signet-controller: this speaks plain HTTP to its own agent",
            )),
        }
    }

    fn started(self, settings: Settings, data_dir: &Path) -> anyhow::Result<()> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(data_dir);
        made.with_context(|| format!("data directory {}", data_dir.display()))?;
        let _lock = lock(data_dir)?;
        let agent_dir = data_dir.join("agent");
        let hostname = self.own_name(&agent_dir)?;
        let policy = Policy::for_user(&own_user()).find(self.policy.as_deref(), data_dir)?;
        logging::init(&settings.log)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(UP_WORKERS)
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .enable_all()
            .build()?;
        let ended = runtime.block_on(async {
            let signals = Signals::take_over()?;
            // Made before the controller starts: it lets this key in without a token.
            let agent_id = own_key(agent_dir.clone()).await?;
            let settings = Settings { local_agent: Some(agent_id.clone()), ..settings };
            let everything = Everything::start(settings, |controller| AgentConfig {
                group: self.group,
                policy,
                ..AgentConfig::new(agent_dir, controller, hostname.clone())
            });
            everything.await?.run(signals, hostname, agent_id).await
        });
        // Threads that still block (a request under way) shall not hold the end up.
        runtime.shutdown_background();
        ended
    }

    /// The name given now, at an earlier start, or by the system.
    fn own_name(&self, agent_dir: &Path) -> anyhow::Result<Hostname> {
        match (&self.hostname, read_enrolment(agent_dir)?.hostname) {
            (Some(given), Some(noted)) if *given != noted => {
                bail!("this data directory belongs to host {noted}; for {given} give another --data-dir")
            }
            (_, Some(noted)) => Ok(noted),
            (Some(given), None) => Ok(given.clone()),
            (None, None) => {
                let name = gethostname().context("this host's name")?;
                let name = name.to_string_lossy();
                name.parse().map_err(|_| {
                    anyhow!("this host's own name {name:?} is no RFC 1123 name: give --hostname NAME")
                })
            }
        }
    }
}

/// The account that started this, by name if it has one.
fn own_user() -> String {
    let uid = geteuid();
    User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

/// Holds the data directory for this process alone.
fn lock(data_dir: &Path) -> anyhow::Result<Flock<File>> {
    let path = data_dir.join("up.lock");
    let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
    let mut file = file.with_context(|| path.display().to_string())?;
    let mut pid = String::new();
    file.read_to_string(&mut pid).with_context(|| path.display().to_string())?;
    let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
        anyhow!("data directory {} is used by another `signet up` (pid {})", data_dir.display(), pid.trim())
    })?;
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())?;
    Ok(lock)
}

/// The agent's key, made at the first start.
async fn own_key(agent_dir: PathBuf) -> anyhow::Result<AgentId> {
    let read_or_make = move || -> anyhow::Result<AgentId> {
        // Before the data directory was used, a plain file may stand in the way; say which.
        fs::create_dir_all(&agent_dir).with_context(|| agent_dir.display().to_string())?;
        Ok(DataDir::open(&agent_dir)?.key()?.public().agent_id())
    };
    tokio::task::spawn_blocking(read_or_make).await?
}

/// Ctrl-C and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn take_over() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Controller and agent at work.
struct Everything {
    controller: Running,
    agent: JoinHandle<anyhow::Result<()>>,
    stop_agent: CancellationToken,
}

impl Everything {
    async fn start(settings: Settings, agent: impl FnOnce(String) -> AgentConfig) -> anyhow::Result<Self> {
        let in_process = matches!(settings.bus, BusSettings::InProcess);
        let (mut controller, bus) = if in_process {
            let bus: Arc<dyn Bus> = Arc::new(MemoryBus::default());
            (start_on(settings, Arc::clone(&bus)).await?, BusSource::Given(bus))
        } else {
            let tls = settings.broker_tls.clone();
            (start(settings).await?, BusSource::FromWelcome(tls))
        };
        if let Err(error) = controller.ready().await {
            controller.finished().await?;
            return Err(error);
        }
        let address = controller.addrs.first().context("no address to listen on")?;
        // Plain HTTP to an address that is not loopback is believed because the key is known beforehand.
        let fingerprint =
            controller.app.keys.fleet().map_err(|e| anyhow!("{e}"))?.signing().public().id().clone();
        let config = AgentConfig {
            fingerprint: Some(fingerprint),
            ..agent(format!("http://{}", reachable(*address)))
        };
        let stop_agent = CancellationToken::new();
        let agent = tokio::spawn(signet_agent::run(config, bus, stop_agent.clone()));
        Ok(Self { controller, agent, stop_agent })
    }

    async fn run(mut self, mut signals: Signals, host: Hostname, agent: AgentId) -> anyhow::Result<()> {
        let greeted = tokio::select! {
            greeted = greet(&self.controller, &host, &agent) => greeted.map(Some),
            () = signals.next() => Ok(None),
            ended = &mut self.agent => Err(agent_ended(ended)),
        };
        let ended = match greeted {
            Ok(None) => Ok(()),
            Err(error) => Err(error),
            Ok(Some(())) => tokio::select! {
                () = signals.next() => Ok(()),
                ended = self.controller.finished() => return ended.and_then(|()| bail!("the controller ended")),
                ended = &mut self.agent => Err(agent_ended(ended)),
            },
        };
        let stopped = tokio::select! {
            stopped = self.stop() => stopped,
            () = signals.next() => exit(130),
        };
        ended.and(stopped)
    }

    /// The agent first, so that its last words reach the controller.
    async fn stop(self) -> anyhow::Result<()> {
        self.stop_agent.cancel();
        let agent =
            if self.agent.is_finished() { Ok(()) } else { self.agent.await.context("the agent panicked")? };
        self.controller.stop().await?;
        agent
    }
}

/// Sends the first command, prints its result, and says that everything is ready.
async fn greet(controller: &Running, host: &Hostname, agent: &AgentId) -> anyhow::Result<()> {
    let app = &controller.app;
    let address = controller.addrs.first().context("no address to listen on")?;
    let token = app.settings.admin_token.as_ref().map(|token| Token::new(token.reveal()));
    let client = Client::new(&format!("http://{}", reachable(*address)), token)?;
    let answer = first_command::ask(&client, app.bus.as_ref(), host, agent).await;
    let mut out = io::stdout().lock();
    match answer {
        Ok(answer) => writeln!(out, "signet: {host}: {answer}")?,
        Err(why) => writeln!(io::stderr(), "signet: warning: {why:#}; see signet doctor {host}")?,
    }
    out.write_all(controller.announcement().as_bytes())?;
    out.flush()?;
    Ok(())
}

fn agent_ended(ended: Result<anyhow::Result<()>, tokio::task::JoinError>) -> anyhow::Error {
    match ended {
        Ok(Ok(())) => anyhow!("the agent ended"),
        Ok(Err(error)) => error.context("the agent"),
        Err(error) => anyhow!(error).context("the agent"),
    }
}

/// Where a listener can be reached from this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up(data_dir: &Path) -> Up {
        Up {
            listen: Vec::new(),
            data_dir: Some(data_dir.to_owned()),
            hostname: None,
            group: None,
            policy: None,
        }
    }

    #[test]
    fn a_data_directory_is_used_once() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).unwrap();
        let error = lock(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        drop(held);
        lock(dir.path()).unwrap();
    }

    #[test]
    fn who_names_an_address_beyond_this_machine_means_it() {
        let dir = tempfile::tempdir().unwrap();
        let beyond = vec!["0.0.0.0:1".parse().unwrap()];
        let settings = Up { listen: beyond, ..up(dir.path()) }.settings(dir.path()).unwrap();
        assert!(settings.allow_plain.http && !settings.allow_plain.amqp);
        assert!(!up(dir.path()).settings(dir.path()).unwrap().allow_plain.http);
    }

    #[test]
    fn flags_go_before_the_controllers_own_settings() {
        let dir = tempfile::tempdir().unwrap();
        let listen = vec!["127.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()];
        let settings = Up { listen: listen.clone(), ..up(dir.path()) }.settings(dir.path()).unwrap();
        assert_eq!((settings.listen, settings.data_dir), (listen, dir.path().to_owned()));
    }

    #[test]
    fn a_data_directory_keeps_its_host() {
        let dir = tempfile::tempdir().unwrap();
        let name = |text: &str| Up { hostname: Some(text.parse().unwrap()), ..up(dir.path()) };
        assert_eq!(name("web1").own_name(dir.path()).unwrap().as_str(), "web1");
        fs::write(dir.path().join("enrolment.toml"), "hostname = \"web1\"").unwrap();
        assert_eq!(up(dir.path()).own_name(dir.path()).unwrap().as_str(), "web1");
        assert!(name("web2").own_name(dir.path()).unwrap_err().to_string().contains("web1"));
    }

    #[test]
    fn every_listener_can_be_reached_from_here() {
        for (listen, reach) in
            [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.1:1", "10.0.0.1:1")]
        {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), reach);
        }
    }
}
