//! The program itself: settings, the ready line, the end on a signal.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};

pub(crate) fn controller() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_signet-controller"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SIGNET_")) {
        command.env_remove(name);
    }
    command.env_remove("PORT");
    command
}

fn run(command: &mut Command) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
}

#[test]
fn check_config_prints_no_secret() {
    let (code, text) = run(controller()
        .args(["--check-config", "--join-token", "s3cret-1", "--allow-plain", "amqp"])
        .env("SIGNET_DATABASE_URL", "mysql://root:s3cret-2@db/signet")
        .env("SIGNET_AMQP_URL", "amqp://guest:s3cret-3@mq")
        .env("SIGNET_ADMIN_TOKEN", "s3cret-4")
        .env("SIGNET_LISTEN", "127.0.0.1:8000,127.0.0.1:8001"));
    assert_eq!(code, Some(0), "{text}");
    assert!(!text.contains("s3cret"), "{text}");
    assert!(text.contains("127.0.0.1:8001") && text.contains("[redacted]"), "{text}");
}

#[test]
fn what_makes_no_sense_stops_the_start_and_is_named() {
    let (code, text) = run(controller().env("SIGNET_TRUSTED_PROXIES", "nonsense"));
    assert_eq!(code, Some(2));
    assert!(text.contains("SIGNET_TRUSTED_PROXIES"), "{text}");
    let (code, text) = run(controller().args(["--no-such-setting", "1"]));
    assert_eq!(code, Some(2));
    assert!(text.contains("--no-such-setting"), "{text}");
}

#[test]
fn help_lists_every_variable() {
    let (code, text) = run(controller().arg("--help"));
    assert_eq!(code, Some(0));
    for name in signet_controller::settings::sources::VARIABLES {
        assert!(text.contains(name), "{name}");
    }
}

#[test]
fn sqlite_memory_it_says_when_it_is_ready_and_ends_on_a_signal() {
    let data = tempfile::tempdir().unwrap();
    let mut child = controller()
        .args(["--listen", "127.0.0.1:0"])
        .env("SIGNET_DATA_DIR", data.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines.next().unwrap().unwrap();
    assert!(ready.starts_with("signet: ready on http://127.0.0.1:"), "{ready}");
    for name in ["admin.token", "master.key", "signet.db"] {
        assert!(data.path().join(name).is_file(), "{name}");
    }
    let stopped = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(stopped.success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
