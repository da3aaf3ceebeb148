//! Hosts that run not just any program: what their git reads, and how it finds out.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};

use crate::backend::{Backend, seen_in_processes};
use crate::hostile::trap;
use crate::world::{Done, World};

#[tokio::test]
async fn a_narrowed_host_runs_no_program_of_a_git_configuration() {
    let mut world = World::new();
    let (program, mark) = trap(&world);
    let backend = Backend::start(world.dir.path().canonicalize().unwrap(), "ci", "token");
    let repository = format!("{}/origin/.git", backend.url);
    let change = || json!({ "repository": repository, "protocols": ["http"], "force": true });
    world.deploy(json!({})).await.succeeded();
    let helper = format!(
        "[credential]\n\thelper = {0}\n[credential \"{1}\"]\n\thelper = {0}\n",
        program.display(),
        backend.url
    );
    let own = world.path.join(".git/config");
    let config = fs::read_to_string(&own).unwrap();
    for file in [world.home.join(".gitconfig"), own] {
        world.commit("more");
        let plain = if file.ends_with("config") { config.as_str() } else { "" };
        fs::write(&file, format!("{plain}{helper}")).unwrap();
        world.narrowed = true;
        assert_eq!(world.deploy(change()).await.result.exit_code, Some(1));
        assert!(!mark.exists(), "{}", file.display());
        world.narrowed = false;
        assert_eq!(world.deploy(change()).await.result.exit_code, Some(1));
        assert!(mark.exists(), "{}", file.display());
        fs::remove_file(&mark).unwrap();
        fs::write(&file, plain).unwrap();
    }
    // The user's is not read at all.
    let elsewhere = format!("[url \"file://{}\"]\n\tinsteadOf = file:///alias\n", world.origin.display());
    fs::write(world.home.join(".gitconfig"), elsewhere).unwrap();
    let path = world.dir.path().join("srv/alias");
    let alias = || json!({ "repository": "file:///alias", "path": path });
    world.narrowed = true;
    world.deploy(alias()).await.failed("git fetch failed");
    world.narrowed = false;
    world.deploy(alias()).await.succeeded();
}

impl World {
    /// Deploys with more in the agent's environment.
    async fn deploy_in(&self, change: Value, env: &[(&str, &str)]) -> Done {
        let (mut spec, report) = self.spec(change, None);
        spec.env.extend(env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        self.run(spec, &report).await
    }
}

/// A git that says it is of this version, and does not know of `GIT_CONFIG_GLOBAL`.
const OLD_GIT: &str = r#"#!/bin/sh
for argument in "$@"; do test "$argument" = --version && echo "git version VERSION" && exit; done
unset GIT_CONFIG_GLOBAL
PATH="${PATH#*:}" exec git "$@"
"#;

#[tokio::test]
async fn an_old_git_reads_no_configuration_of_the_user_either() {
    let mut world = World::new();
    let bin = world.dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let env = [("PATH", path.as_str())];
    let plays = |version: &str| {
        fs::write(bin.join("git"), OLD_GIT.replace("VERSION", version)).unwrap();
        fs::set_permissions(bin.join("git"), fs::Permissions::from_mode(0o755)).unwrap();
    };
    let elsewhere = format!("[url \"file://{}\"]\n\tinsteadOf = file:///alias\n", world.origin.display());
    let alias = |place: &str| json!({ "repository": "file:///alias", "path": world.dir.path().join("srv").join(place) });
    let configured = [world.home.join(".gitconfig"), world.home.join(".config/git/config")];
    fs::create_dir_all(world.home.join(".config/git")).unwrap();
    let (alias_old, alias_new) = (alias("old"), alias("new"));
    world.narrowed = true;
    for file in &configured {
        fs::write(file, &elsewhere).unwrap();
        for version in ["2.30.2", "2.31.8", "of nobody"] {
            plays(version);
            world.deploy_in(alias_old.clone(), &env).await.failed("git fetch failed");
        }
        // Else it would have been read, so this git is as deaf as it says.
        plays("2.32.0");
        world.deploy_in(alias_new.clone(), &env).await.succeeded();
        fs::remove_dir_all(world.dir.path().join("srv/new")).unwrap();
        fs::remove_file(file).unwrap();
    }
    plays("2.31.8");
    world.deploy_in(json!({}), &env).await.succeeded();
    assert_eq!(world.read("version"), "one");
    let releases = json!({ "path": world.dir.path().join("srv/releases"), "strategy": { "releases": {} } });
    world.deploy_in(releases, &env).await.succeeded();
}

/// What a proxy was asked.
struct Asked {
    /// The request's head.
    head: Vec<String>,
    /// Where the proxy's password was seen meanwhile.
    seen: Vec<String>,
}

/// How the line begins that brings a proxy its password.
const AUTHORIZED: &str = "proxy-authorization: basic ";

/// A proxy that wants a password and leads nowhere: its address, and what it is asked.
fn proxy(password: &'static str) -> (String, Receiver<Asked>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (tell, asked) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let lines = BufReader::new(&stream).lines().map(Result::unwrap);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let answer = match head.iter().any(|line| line.to_lowercase().starts_with(AUTHORIZED)) {
                true => "404 X",
                false => "407 X\r\nproxy-authenticate: Basic realm=\"proxy\"",
            };
            tell.send(Asked { head, seen: seen_in_processes(password) }).unwrap();
            let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            (&stream).write_all(answer.as_bytes()).unwrap();
        }
    });
    (address, asked)
}

#[tokio::test]
async fn a_narrowed_host_finds_its_proxy_in_the_agents_environment() {
    const PASSWORD: &str = "pr0xy-s3cret-of-one-test";
    let mut world = World::new();
    world.narrowed = true;
    let (address, asked) = proxy(PASSWORD);
    let at = format!("http://me:{PASSWORD}@{address}");
    let env = [("http_proxy", at.as_str()), ("https_proxy", at.as_str()), ("no_proxy", "0.0.0.0")];
    let from =
        |repository: &str, protocol: &str| json!({ "repository": repository, "protocols": [protocol] });

    world.deploy_in(from("http://git.invalid/app", "http"), &env).await.failed("git fetch failed");
    let Asked { head, seen } = asked.try_iter().last().unwrap();
    assert!(head[0].starts_with("GET http://git.invalid/app/info/refs"), "{head:?}");
    assert!(head.iter().any(|line| line.to_lowercase().starts_with(AUTHORIZED)), "{head:?}");
    let place = |part: &str| seen.iter().any(|place| place.contains(part));
    assert!(place("environ") && !place("cmdline"), "{seen:?}");
    world.deploy_in(from("https://git.invalid/app", "https"), &env).await.failed("git fetch failed");
    let Asked { head, .. } = asked.try_iter().last().unwrap();
    assert!(head[0].starts_with("CONNECT git.invalid:443"), "{head:?}");

    // Where no proxy is wanted, and on this very host, none is asked.
    let backend = Backend::start(world.dir.path().canonicalize().unwrap(), "ci", "token");
    let port = backend.url.rsplit(':').next().unwrap();
    for host in ["0.0.0.0", "127.0.0.1", "localhost"] {
        let repository = format!("http://{host}:{port}/origin/.git");
        world.deploy_in(from(&repository, "http"), &env).await.failed("terminal prompts disabled");
        assert!(asked.try_recv().is_err(), "{host}");
    }
}
