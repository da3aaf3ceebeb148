//! The hello: who says it, and why its answer is believed.

use signet_common::envelope::{Audience, DsseJson, Envelope, PayloadType};
use signet_common::ids::{Hostname, Jti, KeyId, StartId};
use signet_common::join::JoinToken;
use signet_common::keyring::{Keyring, version_of};
use signet_common::keys::SigningKey;
use signet_common::messages::{FEATURES, Hello, Welcome};
use signet_common::seal::{Binding, SealingKey};
use signet_common::time::Micros;
use uuid::Uuid;

use crate::agent::Agent;
use crate::http::{Answer, Client, Controller, HttpError};
use crate::identity::{DataDir, own_fingerprint};
use crate::journal::Head;

/// Why a hello led to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HelloError {
    /// See there.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The answer is not the controller's.
    #[error("the answer is not believed: {0}")]
    Untrusted(String),
    /// Something here failed.
    #[error("{0}")]
    Own(String),
}

/// An answer that was verified.
#[derive(Debug)]
pub(crate) struct Welcomed {
    pub welcome: Welcome,
    /// Whom to believe from now on.
    pub keyring: Keyring,
    /// Its signed form, when it is newer than what was held.
    pub signed: Option<DsseJson>,
    /// The broker's address with credentials.
    pub broker: Option<String>,
}

/// What is known of the controller before it answers.
pub(crate) struct Trust {
    pub controller: Controller,
    pub join: Option<JoinToken>,
    pub fingerprint: Option<KeyId>,
}

impl Trust {
    /// Whether a first answer may be believed at all.
    pub(crate) fn check(&self, held: Option<&Keyring>) -> Result<(), String> {
        if held.is_some() || self.fingerprint.is_some() || self.controller.is_protected() {
            return Ok(());
        }
        Err(format!(
            "{} is plain HTTP over a network, and nothing names the controller's key: use https, a join token \
             with a fingerprint, or --controller-key",
            self.controller.as_str()
        ))
    }

    /// Walks the chain of keyrings from what is believed already.
    pub(crate) fn believe(
        &self,
        held: Option<&Keyring>,
        chain: &[DsseJson],
    ) -> Result<(Keyring, Option<DsseJson>), String> {
        let known = held.map_or(0, Keyring::version);
        let newest = match (held, &self.fingerprint) {
            (Some(held), _) => held.advance_all(chain),
            (None, Some(fingerprint)) => {
                let first = chain.iter().find_map(|signed| Keyring::trust_first(signed, fingerprint).ok());
                let first =
                    first.ok_or("no keyring is signed by the key that this agent was told to believe")?;
                first.advance_all(chain)
            }
            (None, None) => {
                self.check(None)?;
                let last = chain.last().ok_or("no keyring")?;
                let fingerprint = own_fingerprint(last).ok_or("a malformed keyring")?;
                tracing::warn!(%fingerprint, "the controller's key is believed on first use");
                Keyring::trust_first(last, &fingerprint)
            }
        };
        let newest = newest.map_err(|e| e.to_string())?;
        let signed = chain.iter().find(|s| version_of(s) == Some(newest.version())).cloned();
        let signed = signed.filter(|_| newest.version() > known);
        Ok((newest, signed))
    }
}

/// A hello that only lacks the controller's nonce, so that it can be said from another thread.
pub(crate) struct Draft {
    key: SigningKey,
    hello: Hello,
    held: Option<Keyring>,
    sealing: SealingKey,
}

/// Who says hello.
pub(crate) struct Who<'a> {
    pub key: &'a SigningKey,
    pub hostname: &'a Hostname,
    pub group: Option<&'a str>,
    pub start_id: &'a StartId,
}

/// What the agent says of itself; in this start's first hello, where its log stood when it was opened.
pub(crate) fn draft(agent: &Agent, answered: bool) -> Result<Draft, HelloError> {
    let now = agent.journal.head().borrow().clone();
    let first = !answered && now.log_id == agent.opened.log_id;
    let head = if first { agent.opened.clone() } else { now };
    let held = agent.desk().keyring.clone();
    let who = Who {
        key: &agent.key,
        hostname: &agent.hostname,
        group: agent.group.as_deref(),
        start_id: &agent.start_id,
    };
    Draft::new(&who, &agent.data, head, held)
}

impl Draft {
    /// What an agent says of itself whose log stands there.
    pub(crate) fn new(
        who: &Who<'_>,
        data: &DataDir,
        head: Head,
        held: Option<Keyring>,
    ) -> Result<Self, HelloError> {
        let sealing = data.sealing_key().map_err(|e| HelloError::Own(e.to_string()))?;
        let hello = Hello {
            iss: who.key.public().agent_id().to_string(),
            aud: vec!["controller".to_owned()],
            iat: Micros::now().seconds(),
            jti: Jti::generate(),
            public_key: who.key.public().to_pem(),
            hostname: who.hostname.clone(),
            group: who.group.map(str::to_owned),
            controller_nonce: String::new(),
            nonce: Uuid::new_v4().to_string(),
            sealing_key: sealing.public(),
            join: None,
            start_id: who.start_id.clone(),
            log_id: head.log_id,
            head: head.seq,
            chain: head.chain,
            new_log: head.not_before.is_none(),
            keyring: held.as_ref().map_or(0, Keyring::version),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            features: FEATURES.iter().map(|&f| f.to_owned()).collect(),
        };
        Ok(Self { key: who.key.clone(), hello, held, sealing })
    }

    /// Says hello and checks the answer. Blocks.
    pub(crate) fn say(&mut self, trust: &Trust) -> Result<Welcomed, HelloError> {
        trust.check(self.held.as_ref()).map_err(HelloError::Untrusted)?;
        let client = Client::new(&trust.controller);
        self.hello.controller_nonce = client.nonce()?;
        let me = self.key.public().agent_id();
        self.hello.join = trust.join.as_ref().map(|token| token.prove(&self.hello.controller_nonce, &me));
        let signed = Envelope::sign(&self.key, PayloadType::Hello, &self.hello);
        let signed = signed.map_err(|e| HelloError::Own(e.to_string()))?;
        let answer = client.hello(&signed.to_dsse())?;
        self.welcomed(trust, &answer).map_err(HelloError::Untrusted)
    }

    fn welcomed(&self, trust: &Trust, answer: &Answer) -> Result<Welcomed, String> {
        let (keyring, signed) = trust.believe(self.held.as_ref(), &answer.chain)?;
        let envelope = answer.welcome.envelope().map_err(|e| e.to_string())?;
        let newest = |id: &KeyId| Some(keyring.current().clone()).filter(|k| k.id() == id);
        let me = self.key.public().agent_id();
        let welcome = envelope
            .verify(&[PayloadType::Welcome], newest)
            .and_then(|authentic| authentic.open::<Welcome>(&Audience::Agent(me.clone())))
            .map_err(|e| e.to_string())?
            .into_inner();
        if welcome.nonce != self.hello.nonce {
            return Err("it answers another hello".into());
        }
        let open = |sealed| {
            let binding = Binding { jti: &welcome.jti, agent: &me, field: "broker" };
            let opened = self.sealing.open(sealed, binding).map_err(|e| e.to_string())?;
            String::from_utf8(opened).map_err(|_| "the broker's address is not text".to_owned())
        };
        let broker = welcome.broker.as_ref().map(open).transpose()?;
        Ok(Welcomed { welcome, keyring, signed, broker })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust(url: &str, fingerprint: Option<KeyId>) -> Trust {
        Trust { controller: Controller::parse(url).unwrap(), join: None, fingerprint }
    }

    #[test]
    fn who_is_believed() {
        let keys: Vec<SigningKey> = (0..3).map(|_| SigningKey::generate().unwrap()).collect();
        let (one, first) = Keyring::first(&keys[0], 1).unwrap();
        let (two, second) = one.next(&keys[0], &keys[1], 2, false).unwrap();
        let (_, forged) = Keyring::first(&keys[2], 1).unwrap();
        let chain = [first.clone(), second.clone()];
        let id = |n: usize| Some(keys[n].public().id().clone());
        let (local, remote) = ("http://127.0.0.1:1", "http://10.0.0.1:1");

        // A fingerprint finds its place anywhere in the chain.
        assert_eq!(trust(remote, id(0)).believe(None, &chain).unwrap(), (two.clone(), Some(second.clone())));
        assert_eq!(trust(remote, id(1)).believe(None, &chain).unwrap().0, two);
        assert!(trust(remote, id(2)).believe(None, &chain).is_err());
        assert!(trust(remote, id(0)).believe(None, std::slice::from_ref(&forged)).is_err());

        // What is held goes before what was said once.
        assert_eq!(trust(remote, id(2)).believe(Some(&one), &chain).unwrap(), (two.clone(), Some(second)));
        assert_eq!(trust(remote, None).believe(Some(&two), &chain).unwrap(), (two.clone(), None));
        assert_eq!(trust(remote, None).believe(Some(&two), &[]).unwrap(), (two, None));
        assert!(trust(local, None).believe(Some(&one), &[first, forged]).is_ok_and(|(k, _)| k == one));

        // On first use only where nobody can sit in between.
        assert!(trust(local, None).believe(None, &chain).is_ok());
        assert!(trust("https://c", None).believe(None, &chain).is_ok());
        assert!(trust(remote, None).believe(None, &chain).is_err());
        assert!(trust(local, None).believe(None, &[]).is_err());
    }
}
