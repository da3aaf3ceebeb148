//! Hello: an agent introduces itself, proves its key, and learns where it stands (DESIGN 3).

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde_json::json;
use signet_common::bus::Queue;
use signet_common::envelope::{Audience, DsseJson, Envelope, PayloadType};
use signet_common::messages::{Hello, Standing, Welcome};
use signet_common::seal::{self, Binding};
use signet_common::time::Micros;
use signet_common::{AgentId, Hostname, Jti, PublicKey};

use super::broker_users::broker_of;
use super::join_tokens::{self, Admission};
use super::model::KeyStanding;
use super::sealing_keys;
use super::service::{DEFAULT_GROUP, group_name};
use super::store;
use crate::app::App;
use crate::audit::{self, Action, Author, Note};
use crate::dispatch::HelloAnswer;
use crate::error::{Error, Result};
use crate::limits::NONCE_SECONDS;
use crate::settings::{BusSettings, Secret};
use crate::store::{StoreError, Tx, in_transaction};

/// The header that carries the keyring chain of an answer: base64 of a JSON array, oldest first.
pub(super) const KEYRING_HEADER: &str = "signet-keyring";

/// Length of an X25519 public key (RFC 7748).
const X25519_BYTES: usize = 32;

/// What the tag of a nonce is bound to.
const NONCE_USE: &[u8] = b"hello-nonce";
/// When a nonce was made, and something random.
pub(super) const NONCE_BODY_BYTES: usize = 16;

/// A nonce that one hello may use: when it was made, something random, and a tag that only this installation can make.
/// Nothing is kept of it before it is used, so that strangers who ask for one cost nothing.
pub(super) fn nonce(app: &App) -> Result<String> {
    let mut body = [0; NONCE_BODY_BYTES];
    aws_lc_rs::rand::fill(&mut body).map_err(|_| Error::Internal("no randomness".into()))?;
    body[..8].copy_from_slice(&Micros::now().seconds().to_be_bytes());
    let tag = app.keys.master().tag(&[NONCE_USE, &body].concat());
    Ok(hex::encode([&body[..], &tag].concat()))
}

/// Whether a nonce is one of ours and not too old; a used one is found in the transaction.
fn believed(app: &App, nonce: &str) -> bool {
    let Ok(bytes) = hex::decode(nonce) else { return false };
    let Some((body, tag)) = bytes.split_first_chunk::<NONCE_BODY_BYTES>() else { return false };
    let made_at = body.first_chunk().map(|time| i64::from_be_bytes(*time));
    made_at.is_some_and(|at| fresh(at, Micros::now().seconds()))
        // One way to write it, because the text is what is noted when it is used.
        && hex::encode(&bytes) == nonce
        && app.keys.master().tagged(&[NONCE_USE, body].concat(), tag)
}

/// Another controller's clock may be ahead of ours.
fn fresh(made_at: i64, now: i64) -> bool {
    now.saturating_sub(made_at).saturating_abs() <= NONCE_SECONDS
}

/// What a hello is answered with.
pub(super) struct Answer {
    pub(super) welcome: DsseJson,
    pub(super) keyring: String,
}

/// Who said hello, proven by its signature.
struct Caller {
    id: AgentId,
    key: PublicKey,
    hello: Hello,
    ip: IpAddr,
}

/// Where the caller stands after the transaction.
enum Outcome {
    Accepted(HelloAnswer),
    Pending(String),
}

/// Why no other host can enrol at a controller whose bus is in its own process.
pub(super) const ALONE: &str =
    "this controller's bus reaches only the agent inside it; set SIGNET_AMQP_URL to enrol other hosts";

/// Answers a hello.
pub(super) async fn hello(app: &App, by: &Author, ip: IpAddr, body: &DsseJson) -> Result<Answer> {
    let caller = proven(app, body, ip)?;
    let by = by.with_key_of(&caller.id);
    let local = app.settings.local_agent.as_ref() == Some(&caller.id);
    if matches!(app.settings.bus, BusSettings::InProcess) && !local {
        return Err(Error::Conflict(ALONE.into()));
    }
    let (outcome, now) = in_transaction!(app.store, |tx| -> Result<(Outcome, Micros)> {
        let now = Micros::now();
        if !store::use_nonce(tx, &caller.hello.controller_nonce, now).await? {
            return Err(stale_nonce());
        }
        if let Some(reason) = place(app, tx, &by, &caller, local, now).await? {
            return Ok((Outcome::Pending(reason), now));
        }
        sealing_keys::set(tx, &caller.id, &caller.hello.sealing_key).await?;
        // The time that the answer tells is read under the server's lock: with a new log, what was asked for before ends
        // here, and what is asked for after it carries a later time.
        let now = Micros::now();
        Ok((Outcome::Accepted(app.dispatch.hello(tx, &caller.id, &caller.hello, now).await?), now))
    })?;
    app.hosts.keys_changed();
    if matches!(outcome, Outcome::Accepted(_)) {
        // Without the broker the answer counts all the same: the first publish that comes back makes the queue, and so
        // does the next hello of an agent that does not find it.
        if let Err(error) = app.bus.declare(&Queue::Agent(caller.id.clone())).await {
            tracing::warn!(agent = %caller.id, %error, "the agent's queue can't be made yet");
        }
    }
    let broker = match &outcome {
        Outcome::Accepted(_) => broker_of(app, &caller.id, &caller.hello.start_id).await?,
        Outcome::Pending(_) => None,
    };
    answer(app, &caller, outcome, broker, now).await
}

/// What a message brings along to be believed.
pub(super) struct Proof<'a> {
    pub(super) iss: &'a str,
    pub(super) controller_nonce: &'a str,
    pub(super) public_key: &'a str,
}

/// Checks the nonce, and the signature with the key that the message itself brings: it proves possession, nothing more.
pub(super) fn by_its_own_key<T: DeserializeOwned>(
    app: &App,
    body: &DsseJson,
    kind: PayloadType,
    proof: impl Fn(&T) -> Proof<'_>,
) -> Result<(PublicKey, T)> {
    let envelope = body.envelope().map_err(|_| Error::invalid("payload", "not a DSSE envelope"))?;
    let claimed: T = serde_json::from_slice(&envelope.body)
        .map_err(|_| Error::invalid("payload", "the payload is not what belongs here"))?;
    let said = proof(&claimed);
    // First, because it is the cheapest to check and the hardest to invent.
    if !believed(app, said.controller_nonce) {
        return Err(stale_nonce());
    }
    let key =
        PublicKey::from_pem(said.public_key).map_err(|e| Error::invalid("public_key", e.to_string()))?;
    let verified = envelope
        .verify(&[kind], |_| Some(key.clone()))
        .and_then(|authentic| authentic.open::<T>(&Audience::Controller))
        .map_err(|refusal| refused(&format!("the message is not believed: {refusal}")))?;
    if proof(verified.get()).iss != key.agent_id().as_str() {
        return Err(refused("the message names another agent than its key's"));
    }
    Ok((key, verified.into_inner()))
}

/// Who says hello, proven by its signature.
fn proven(app: &App, body: &DsseJson, ip: IpAddr) -> Result<Caller> {
    let (key, hello) = by_its_own_key(app, body, PayloadType::Hello, |hello: &Hello| Proof {
        iss: &hello.iss,
        controller_nonce: &hello.controller_nonce,
        public_key: &hello.public_key,
    })?;
    if !STANDARD.decode(&hello.sealing_key).is_ok_and(|k| k.len() == X25519_BYTES) {
        return Err(Error::invalid("sealing_key", "not an X25519 key in base64"));
    }
    Ok(Caller { id: key.agent_id(), key, hello, ip })
}

pub(super) fn stale_nonce() -> Error {
    refused("the nonce is unknown, used or too old; fetch a new one")
}

fn refused(why: &str) -> Error {
    Error::Refused(why.to_owned())
}

/// Finds or makes the caller's place; says why it is pending, if it is.
async fn place(
    app: &App,
    tx: &mut Tx,
    by: &Author,
    caller: &Caller,
    local: bool,
    now: Micros,
) -> Result<Option<String>> {
    let Some(row) = store::agent(tx, &caller.id).await? else {
        return enrol(app, tx, by, caller, local, now).await;
    };
    let host: Hostname = row.hostname.parse().map_err(|e| Error::Internal(format!("{e}")))?;
    // Read again under the server's lock, which everyone holds who changes a standing or asks for a command.
    store::server_agent(tx, &host).await?;
    let row = store::agent(tx, &caller.id).await?.unwrap_or(row);
    match row.standing()? {
        KeyStanding::Accepted => {
            store::set_server_ip(tx, &host, &caller.ip.to_string()).await?;
            Ok(None)
        }
        KeyStanding::Pending => Ok(Some(waiting(&host))),
        KeyStanding::Replaced => Err(Error::Forbidden(format!(
            "the key of {host} was replaced by another; this one gets nothing new"
        ))),
        KeyStanding::Revoked => Err(Error::Forbidden(format!("this key of {host} was revoked"))),
    }
}

fn waiting(host: &Hostname) -> String {
    format!("{host} has another key; an admin must compare fingerprints and accept this one")
}

/// A new key: with a token it gets its hostname if that is free, and waits for an admin if not.
async fn enrol(
    app: &App,
    tx: &mut Tx,
    by: &Author,
    caller: &Caller,
    local: bool,
    now: Micros,
) -> Result<Option<String>> {
    let admission = if local {
        Admission::Admitted(None)
    } else {
        join_tokens::admit(app, tx, &caller.id, &caller.hello, now).await?
    };
    let host = &caller.hello.hostname;
    let group = match &admission {
        Admission::Admitted(group) => {
            group.as_deref().or(asked_group(&caller.hello)).unwrap_or(DEFAULT_GROUP)
        }
        Admission::Refused(reason) => {
            tracing::warn!(hostname = %host, agent = %caller.id, peer = %caller.ip, reason, "enrolment refused");
            return Err(refused("this key is not known here, and no valid join token came with it"));
        }
    };
    group_name(group)?;
    let owner = store::server_agent(tx, host).await?;
    let inserted = store::insert_agent(tx, &caller.key, host, KeyStanding::Pending, Some(group), now).await;
    inserted.map_err(meanwhile)?;
    let token = caller.hello.join.as_ref().map(|proof| &proof.token_id);
    let new =
        json!({ "agent": caller.id, "fingerprint": caller.key.id(), "group": group, "join_token": token });
    if let Some(Some(holder)) = &owner {
        let note = Note::of(Action::AgentClaim, host.as_str()).old(json!({ "agent": holder })).new(new);
        audit::note(tx, by, note).await?;
        tracing::warn!(hostname = %host, agent = %caller.id, "another key claims a known host");
        return Ok(Some(waiting(host)));
    }
    if owner.is_none() {
        let inserted = store::insert_server(tx, host, &caller.ip.to_string(), group, None, now).await;
        inserted.map_err(meanwhile)?;
    } else {
        store::set_server_ip(tx, host, &caller.ip.to_string()).await?;
    }
    app.hosts.attach(tx, &app.dispatch, &caller.id, host, now).await?;
    audit::note(tx, by, Note::of(Action::AgentEnrol, host.as_str()).new(new)).await?;
    tracing::info!(hostname = %host, agent = %caller.id, "enrolled");
    Ok(None)
}

/// What was not there a moment ago is there now: another hello was quicker, and the next try finds it.
fn meanwhile(error: StoreError) -> StoreError {
    match error {
        StoreError::Duplicate(what) => StoreError::Conflict(what),
        other => other,
    }
}

/// The group that a host asks for.
pub(super) fn asked_group(hello: &Hello) -> Option<&str> {
    hello.group.as_deref().filter(|group| !group.is_empty())
}

/// Signs what the caller may know.
async fn answer(
    app: &App,
    caller: &Caller,
    outcome: Outcome,
    broker: Option<Secret>,
    now: Micros,
) -> Result<Answer> {
    // Read after the transaction: whoever is told of a keyring may know a newer one, and must not be told an older one.
    let keys = app.keys.newest(&app.store).await?;
    let jti = Jti::generate();
    let seal = |url: Secret| {
        let binding = Binding { jti: &jti, agent: &caller.id, field: "broker" };
        let sealed = seal::seal(url.reveal().as_bytes(), &caller.hello.sealing_key, binding);
        sealed.map_err(|_| Error::invalid("sealing_key", "not an X25519 key in base64"))
    };
    let broker = broker.map(seal).transpose()?;
    let (standing, reason, cursor, chain, new_log) = match outcome {
        Outcome::Accepted(a) => (a.standing, a.reason, a.cursor, a.chain, a.new_log),
        Outcome::Pending(why) => (Standing::Pending, Some(why), 0, None, false),
    };
    let welcome = Welcome {
        iss: "controller".into(),
        aud: vec![caller.id.clone()],
        iat: now.seconds(),
        jti,
        nonce: caller.hello.nonce.clone(),
        standing,
        reason,
        broker,
        cursor,
        chain,
        new_log,
        keyring: keys.version(),
    };
    let key = keys.signing().clone();
    let signed = tokio::task::spawn_blocking(move || Envelope::sign(&key, PayloadType::Welcome, &welcome))
        .await
        .map_err(|e| Error::Internal(e.to_string()))?;
    let chain = serde_json::to_vec(keys.chain()).map_err(|e| Error::Internal(e.to_string()))?;
    Ok(Answer {
        welcome: signed.map_err(|e| Error::Internal(e.to_string()))?.to_dsse(),
        keyring: STANDARD.encode(chain),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_counts_for_two_minutes() {
        assert!(fresh(1_000, 1_000) && fresh(1_000, 1_120) && fresh(1_120, 1_000));
        assert!(!fresh(1_000, 1_121) && !fresh(1_121, 1_000));
        assert!(!fresh(i64::MIN, i64::MAX) && !fresh(i64::MAX, i64::MIN));
    }
}
