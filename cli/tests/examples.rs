//! The files under `examples/` are read by the programs that they are for, so that none of them can lie.

#![allow(clippy::unwrap_used, reason = "what goes wrong fails the test, with its reason")]

use std::path::{Path, PathBuf};

use clap::Parser as _;
use signet_agent::policy::Policy;
use signet_controller::settings::sources::VARIABLES;

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name)
}

#[test]
fn the_policy_narrows() {
    assert!(Policy::default().narrowed_by(&example("policy.toml")).unwrap().is_narrowed());
}

#[test]
fn the_agents_settings_are_all_known() {
    let file = example("agent.toml");
    let line =
        signet_agent::config::CommandLine::parse_from(["signet-agent", "--config", file.to_str().unwrap()]);
    let flags = line.flags.with_file().unwrap();
    assert_eq!(flags.controller.unwrap(), "https://signet.example.com");
}

#[test]
fn the_controllers_settings_are_all_known() {
    let dir = tempfile::tempdir().unwrap();
    let secret = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let settings = std::fs::read_to_string(example("controller.toml")).unwrap();
    let settings = settings
        .replace("/etc/signet/database.url", &secret("database.url", "mysql://signet@127.0.0.1/signet"))
        .replace("/etc/signet/amqp.url", &secret("amqp.url", "amqp://signet@127.0.0.1/signet"));
    let file = secret("controller.toml", &settings);
    let flags =
        signet_controller::settings::sources::Flags::parse_from(["signet-controller", "--config", &file]);
    assert_eq!(flags.settings().unwrap().public_url.unwrap(), "https://signet.example.com");

    for line in std::fs::read_to_string(example("controller.env")).unwrap().lines() {
        let name = line.split_once('=').map_or("", |(name, _)| name);
        assert!(line.is_empty() || line.starts_with('#') || VARIABLES.contains(&name), "{line}");
    }
}
