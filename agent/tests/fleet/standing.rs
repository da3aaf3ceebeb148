//! Who may join, and whom the agent believes.

use serde_json::json;
use signet_agent::{AgentConfig, BusSource};
use signet_common::PayloadType;
use signet_common::ids::Jti;
use signet_common::keys::SigningKey;
use signet_common::messages::{Outcome, Standing};
use tokio_util::sync::CancellationToken;

use crate::controller::{Controller, now};
use crate::support::{Agent, config};

#[tokio::test]
async fn later_starts_need_no_token() {
    let (controller, dir) = (Controller::start().await, tempfile::tempdir().unwrap());
    let agent = Agent::start(&controller, config(&controller, dir.path())).await;
    // It has heard the answer.
    controller.heartbeat(|h| h.keyring == 1).await;
    agent.stop().await;
    let plain = AgentConfig { join: None, fingerprint: None, ..config(&controller, dir.path()) };
    let agent = Agent::start(&controller, plain).await;
    let state = controller.state().hellos.iter().map(|h| (h.log_id.clone(), h.new_log)).collect::<Vec<_>>();
    assert_eq!(state[0].0, state[1].0);
    assert_eq!((state[0].1, state[1].1), (true, false));
    agent.stop().await;
}

#[tokio::test]
async fn a_pending_agent_waits_and_is_let_in() {
    let (controller, dir) = (Controller::start().await, tempfile::tempdir().unwrap());
    controller.state().standing = Standing::Pending;
    let agent = Agent::start(&controller, config(&controller, dir.path())).await;
    controller.state().standing = Standing::Accepted;
    controller.wait("another hello", |state| (state.hellos.len() > 1).then_some(())).await;
    let jti = controller.command(&agent.id, json!({})).await;
    assert_eq!(controller.result(&jti).await.outcome, Outcome::Succeeded);
    agent.stop().await;
}

#[tokio::test]
async fn a_controller_with_another_key_is_not_believed() {
    let (controller, dir) = (Controller::start().await, tempfile::tempdir().unwrap());
    let other = SigningKey::generate().unwrap().public().id().clone();
    let wrong = AgentConfig { fingerprint: Some(other), ..config(&controller, dir.path()) };
    let agent = Agent::start(&controller, wrong).await;
    // It says hello again and again, and never consumes.
    controller.wait("more hellos", |state| (state.hellos.len() >= 2).then_some(())).await;
    controller.command(&agent.id, json!({})).await;
    controller.wait("more hellos", |state| (state.hellos.len() >= 3).then_some(())).await;
    assert!(controller.state().events.is_empty());
    agent.stop().await;
}

#[tokio::test]
async fn a_new_keyring_is_believed_step_by_step() {
    let (controller, dir) = (Controller::start().await, tempfile::tempdir().unwrap());
    let agent = Agent::start(&controller, config(&controller, dir.path())).await;
    let rotate = |revoke| {
        let mut state = controller.state();
        let new = SigningKey::generate().unwrap();
        let (keyring, signed) = state.keyring.next(&state.signing, &new, now(), revoke).unwrap();
        state.chain.push(signed.clone());
        state.keyring = keyring;
        (std::mem::replace(&mut state.signing, new), signed)
    };
    let (old, signed) = rotate(false);
    let push = json!({
        "iss": "controller", "aud": [agent.id], "iat": now(), "exp": now() + 60, "jti": Jti::generate(),
        "keyring": signed,
    });
    let push = signet_common::Envelope::sign(&old, PayloadType::Keyring, &push).unwrap();
    controller.publish(&agent.id, push).await;
    let jti = controller.command(&agent.id, json!({})).await;
    assert_eq!(controller.result(&jti).await.outcome, Outcome::Succeeded);
    assert_eq!(controller.heartbeat(|h| h.keyring == 2).await.keyring, 2);
    agent.stop().await;

    // Two steps behind: the hello's answer carries both.
    rotate(false);
    rotate(true);
    let agent = Agent::start(&controller, config(&controller, dir.path())).await;
    let jti = controller.command(&agent.id, json!({})).await;
    assert_eq!(controller.result(&jti).await.outcome, Outcome::Succeeded);
    assert_eq!(controller.heartbeat(|h| h.keyring == 4).await.keyring, 4);
    agent.stop().await;
}

#[tokio::test]
async fn plain_http_over_a_network_needs_a_known_key_and_one_directory_is_one_agent() {
    let (controller, dir) = (Controller::start().await, tempfile::tempdir().unwrap());
    let bus = || BusSource::Given(controller.bus.clone());
    let open = AgentConfig {
        controller: "http://192.0.2.1:8080".into(),
        fingerprint: None,
        ..config(&controller, dir.path())
    };
    let error = signet_agent::run(open, bus(), CancellationToken::new()).await.unwrap_err();
    assert!(error.to_string().contains("plain HTTP"), "{error}");
    let agent = Agent::start(&controller, config(&controller, dir.path())).await;
    let second = signet_agent::run(config(&controller, dir.path()), bus(), CancellationToken::new()).await;
    assert!(second.unwrap_err().to_string().contains("another agent"));
    agent.stop().await;
}
