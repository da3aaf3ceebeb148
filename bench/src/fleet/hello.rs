//! How a simulated agent comes in: with a hello, a join token, and an answer that it verifies.

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Response;
use serde::Deserialize;
use signet_common::chain::ChainHash;
use signet_common::envelope::{Audience, DsseJson};
use signet_common::join::JoinToken;
use signet_common::keyring::{Keyring, KeyringBody};
use signet_common::messages::{FEATURES, Hello, Standing, Welcome};
use signet_common::seal::{Binding, SealingKey};
use signet_common::time::Micros;
use signet_common::{Envelope, Hostname, Jti, LogId, PayloadType, PublicKey, SigningKey, StartId};
use uuid::Uuid;

use crate::api::Api;
use crate::stage::JOIN_TOKEN;

/// An agent that the controller has let in.
pub(super) struct Welcomed {
    pub(super) key: SigningKey,
    pub(super) hostname: Hostname,
    pub(super) start_id: StartId,
    pub(super) log_id: LogId,
    pub(super) keyring: Keyring,
    /// Where the broker is, with credentials.
    pub(super) broker: String,
}

#[derive(Deserialize)]
struct Nonce {
    nonce: String,
}

/// Says hello as the n-th host.
pub(super) async fn say(api: &Api, key: SigningKey, n: usize) -> anyhow::Result<Welcomed> {
    let sealing = SealingKey::generate()?;
    let answer = api.client().get(format!("{}/api/agents/nonce", api.base())).send().await?;
    let nonce: Nonce = answer.error_for_status()?.json().await?;
    let hello = draft(&key, &sealing, nonce.nonce, n)?;
    let signed = Envelope::sign(&key, PayloadType::Hello, &hello)?.to_dsse();
    let answer = api.client().post(format!("{}/api/agents/hello", api.base())).json(&signed).send().await?;
    let (keyring, welcome) = believe(answer, &hello, &key).await?;
    ensure!(welcome.standing == Standing::Accepted, "{}: {:?}", hello.hostname, welcome.reason);
    let sealed = welcome.broker.as_ref().context("the welcome names no broker")?;
    let me = key.public().agent_id();
    let opened = sealing.open(sealed, Binding { jti: &welcome.jti, agent: &me, field: "broker" })?;
    let broker = String::from_utf8(opened)?;
    let Hello { hostname, start_id, log_id, .. } = hello;
    Ok(Welcomed { key, hostname, start_id, log_id, keyring, broker })
}

fn draft(key: &SigningKey, sealing: &SealingKey, nonce: String, n: usize) -> anyhow::Result<Hello> {
    let me = key.public().agent_id();
    let token: JoinToken = JOIN_TOKEN.parse()?;
    let log_id = LogId::generate();
    Ok(Hello {
        iss: me.to_string(),
        aud: vec!["controller".to_owned()],
        iat: Micros::now().seconds(),
        jti: Jti::generate(),
        public_key: key.public().to_pem(),
        hostname: format!("sim-{n:05}").parse()?,
        group: Some("sim".to_owned()),
        join: Some(token.prove(&nonce, &me)),
        controller_nonce: nonce,
        nonce: Uuid::new_v4().to_string(),
        sealing_key: sealing.public(),
        start_id: StartId::generate(),
        head: 0,
        chain: ChainHash::genesis(&log_id),
        log_id,
        new_log: true,
        keyring: 0,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        features: FEATURES.iter().map(|&feature| feature.to_owned()).collect(),
    })
}

/// Believes the keyring on first use, as an agent does with a static token on this machine, and what it signed.
async fn believe(answer: Response, hello: &Hello, key: &SigningKey) -> anyhow::Result<(Keyring, Welcome)> {
    let header = answer.headers().get("signet-keyring").cloned();
    let (status, text) = (answer.status(), answer.text().await?);
    ensure!(status.is_success(), "hello: {status}: {text}");
    let header = STANDARD.decode(header.context("a hello's answer without a keyring")?)?;
    let chain: Vec<DsseJson> = serde_json::from_slice(&header)?;
    let newest = chain.last().context("an empty keyring")?;
    let body: KeyringBody = serde_json::from_slice(&newest.envelope()?.body)?;
    let keyring = Keyring::trust_first(newest, PublicKey::from_pem(&body.current)?.id())?;
    let signed: DsseJson = serde_json::from_str(&text)?;
    let current = |id: &_| Some(keyring.current().clone()).filter(|key| key.id() == id);
    let authentic = signed.envelope()?.verify(&[PayloadType::Welcome], current)?;
    let welcome = authentic.open::<Welcome>(&Audience::Agent(key.public().agent_id()))?.into_inner();
    ensure!(welcome.nonce == hello.nonce, "it answers another hello");
    Ok((keyring, welcome))
}
