//! Tokens and keys reach git, and nobody else.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};
use signet_testkit::ssh::SshKey;

use crate::backend::{Backend, holds, seen_in_files, seen_in_processes};
use crate::world::World;

const TOKEN: &str = "t0ken/with+odd:characters&\"quotes\"";

fn sealed(kind: &str, change: Value) -> Value {
    let mut credential = json!({ "kind": kind, "sealed": { "enc": "AA==", "ct": "AA==" } });
    credential.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    credential
}

#[tokio::test]
async fn a_token_is_seen_by_the_server_alone() {
    let world = World::new();
    let backend = Backend::start(world.dir.path().canonicalize().unwrap(), "ci", TOKEN);
    let repository = format!("{}/origin/.git", backend.url);
    let message = |credential: Value| {
        json!({
            "repository": repository, "protocols": ["http"], "credential": credential,
        })
    };
    let good = sealed("https_token", json!({ "username": "ci" }));
    for phase in [json!({ "phase": "resolve", "commit": null }), json!({ "phase": "deploy" })] {
        let mut change = message(good.clone());
        change.as_object_mut().unwrap().extend(phase.as_object().unwrap().clone());
        let done = world.deploy_with(change, Some(TOKEN)).await;
        assert!(!holds(done.log.as_bytes(), TOKEN), "{}", done.log);
        done.succeeded();
    }
    assert_eq!(world.read("version"), "one");
    assert!(*backend.served.lock().unwrap() >= 3);
    assert_eq!(*backend.leaks.lock().unwrap(), Vec::<String>::new());
    assert_eq!(seen_in_files(world.dir.path(), TOKEN), Vec::<std::path::PathBuf>::new());

    let wrong = world.deploy_with(message(good), Some("wrong")).await;
    assert!(!wrong.log.contains("wrong"), "{}", wrong.log);
    // The commit is there already, so nothing was asked.
    wrong.succeeded();
    world.commit("two");
    let good = sealed("https_token", json!({ "username": "ci" }));
    world.deploy_with(message(good), Some("wrong")).await.failed("Authentication failed");
    world.deploy_with(message(json!(null)), None).await.failed("terminal prompts disabled");
}

#[test]
fn the_search_finds_what_leaks() {
    use std::os::unix::process::CommandExt as _;
    // Another one than the tests beside this one look for.
    const TOKEN: &str = "an0ther/t0ken&\"";
    let sleep = || {
        let mut sleep = std::process::Command::new("sleep");
        sleep.arg("60");
        sleep
    };
    for (mut leaking, place) in [
        (sleep().env("LEAK", TOKEN).spawn().unwrap(), "environ"),
        (sleep().arg0(TOKEN).spawn().unwrap(), "cmdline"),
    ] {
        let seen = seen_in_processes(TOKEN);
        leaking.kill().unwrap();
        leaking.wait().unwrap();
        assert!(seen.iter().any(|found| found.contains(place)), "{place}: {seen:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let inside = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("xy{TOKEN}z"));
    fs::write(dir.path().join("raw"), TOKEN).unwrap();
    fs::write(dir.path().join("json"), json!({ "a": TOKEN }).to_string()).unwrap();
    fs::write(dir.path().join("base64"), inside).unwrap();
    assert_eq!(seen_in_files(dir.path(), TOKEN).len(), 3);
}

/// A stand-in for ssh that looks at the key with the real tool and runs what it is asked for here.
const SSH: &str = r#"#!/bin/sh
for argument in "$@"; do case "$argument" in -i*) key=${argument#-i};; -oUserKnownHostsFile=*) hosts=${argument#*=};; esac; last=$argument; done
ssh-keygen -y -P '' -f "$key" > LOG.key || exit 9
stat -L -c %a "$key" > LOG.mode
cat "$hosts" > LOG.hosts
tr '\0' '\n' < /proc/$$/environ > LOG.env
echo "$@" > LOG.args
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'
exec sh -c "$last"
"#;

#[tokio::test]
async fn a_deploy_key_is_read_by_ssh_alone() {
    let world = World::new();
    let key = SshKey::ed25519(world.dir.path(), "deploy");
    let secret = fs::read_to_string(world.dir.path().join("deploy")).unwrap();
    fs::remove_file(world.dir.path().join("deploy")).unwrap();
    let (bin, log) = (world.dir.path().join("bin"), world.dir.path().join("ssh"));
    fs::create_dir(&bin).unwrap();
    fs::write(bin.join("ssh"), SSH.replace("LOG", log.to_str().unwrap())).unwrap();
    fs::set_permissions(bin.join("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
    let credential = sealed("deploy_key", json!({ "known_hosts": "git.example.com ssh-ed25519 AAAA" }));
    let repository = format!("git@git.example.com:{}", world.origin.display());
    let leak = world.dir.path().join("hook");
    // What a hook could see of it.
    let look = format!(
        "cat /proc/$PPID/fd/* /proc/$PPID/environ > {} 2>/dev/null & sleep 0.3; true",
        leak.display()
    );
    let how = json!({ "releases": { "build": [look] } });
    let change = json!({
        "repository": repository, "protocols": ["ssh"], "credential": credential, "strategy": how,
    });
    let (mut spec, report) = world.spec(change, Some(&secret));
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    spec.env.insert("PATH".to_owned(), path);
    let done = world.run(spec, &report).await;
    let middle = &secret.lines().nth(2).unwrap()[..40];
    assert!(!done.log.contains(middle));
    done.succeeded();
    assert_eq!(world.read("current/version"), "one");
    let read = |what: &str| fs::read_to_string(format!("{}.{what}", log.display())).unwrap();
    assert_eq!(read("key").split(' ').nth(1), key.public.split(' ').nth(1));
    assert_eq!(read("mode"), "600\n");
    assert_eq!(read("hosts"), "git.example.com ssh-ed25519 AAAA\n");
    assert!(read("args").contains("-oStrictHostKeyChecking=yes") && read("args").contains("-F/dev/null"));
    assert_eq!(seen_in_files(world.dir.path(), middle), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn a_server_that_redirects_passes_no_token_on() {
    use std::io::{BufRead as _, BufReader, Write as _};
    let world = World::new();
    let backend = Backend::start(world.dir.path().canonicalize().unwrap(), "git", TOKEN);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let target = backend.url.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = String::new();
            BufReader::new(&stream).read_line(&mut request).unwrap();
            let path = request.split(' ').nth(1).unwrap_or("/").to_owned();
            let answer = format!(
                "HTTP/1.1 302 X\r\nlocation: {target}{path}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let change = json!({
        "repository": format!("http://localhost:{port}/origin/.git"), "protocols": ["http"],
        "credential": sealed("https_token", json!({})),
    });
    world.deploy_with(change, Some(TOKEN)).await.failed("terminal prompts disabled");
    assert_eq!(*backend.served.lock().unwrap(), 0);
}
