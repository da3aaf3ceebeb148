//! What lets hosts read a job's repository: found when it is needed, and sealed to one host for one message.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use signet_common::deploy::Credential as Sent;
use signet_common::seal::{self, Binding};
use signet_common::{AgentId, Jti};

use super::model::Job;
use super::secrets;
use super::service::Jobs;
use super::store;
use crate::dispatch::{Audience, Drafts, MessageClaims};
use crate::error::{Error, Result};
use crate::hosts::Candidate;
use crate::repositories::Credential;
use crate::store::Tx;

/// What a job's repository asks for.
#[derive(Debug, Default)]
pub(super) struct Access {
    /// What opens it: the job's own, else what is known of the repository.
    pub(super) credential: Option<Credential>,
    /// Who may sign what is deployed: what is known of the repository, else the job's own.
    pub(super) allowed_signers: Option<String>,
}

impl Jobs {
    /// What the job's repository asks for, as it is known now; or in words for people why that can't be had any more.
    pub(super) async fn access(&self, job: &Job) -> Result<std::result::Result<Access, String>> {
        let known = self.repositories().known(&job.plan.git_repo).await?;
        let own = match job.plan.options.credential {
            None => None,
            Some(_) => match self.own_credential(job).await? {
                Some(own) => Some(own),
                None => return Ok(Err("the job's credential is no longer kept; make a new job".into())),
            },
        };
        Ok(Ok(Access {
            credential: own.or(known.credential),
            allowed_signers: known.allowed_signers.or_else(|| job.plan.options.allowed_signers.clone()),
        }))
    }

    /// What was given with the job, for its repository alone.
    async fn own_credential(&self, job: &Job) -> Result<Option<Credential>> {
        let Some((sealed, _)) = store::secret(self.store(), job.id).await? else { return Ok(None) };
        let kept = secrets::open(self.keys(), job.id, &sealed)?;
        Ok(kept.credential_for(&job.plan.git_repo).cloned())
    }
}

/// A credential, and the keys of the hosts that may get it.
#[derive(Debug)]
pub(super) struct Sealing {
    credential: Credential,
    keys: HashMap<AgentId, String>,
    /// To whose keys messages were sealed already.
    ahead: HashSet<AgentId>,
}

/// What was sealed and signed before the transaction that sends it.
#[derive(Debug)]
pub(super) struct Ahead {
    pub(super) sealing: Arc<Sealing>,
    pub(super) drafts: Drafts,
}

impl Ahead {
    /// Whether there is a message for this host, sealed to this key.
    fn has(&self, agent: &AgentId, key: &str) -> bool {
        self.drafts.has(agent) && self.sealing.keys.get(agent).is_some_and(|known| known == key)
    }

    /// The messages for hosts that still have the keys to which they were sealed.
    pub(super) fn drafts(&self, sealing: &Sealing) -> Drafts {
        self.drafts.among(&sealing.ahead)
    }
}

/// Why a host can't get a credential.
const NO_KEY: &str = "no credential can be sealed to this agent: it has shown no key for that; restart it";

impl Sealing {
    /// For these hosts, of which some may have messages already.
    pub(super) async fn new(
        jobs: &Jobs,
        tx: &mut Tx,
        credential: &Credential,
        hosts: &[Candidate],
        ahead: Option<&Ahead>,
    ) -> Result<Self> {
        let agents: Vec<AgentId> =
            hosts.iter().filter_map(|c| Some(c.agent.as_ref()?.agent_id.clone())).collect();
        let keys = jobs.hosts().sealing_keys(tx, &agents).await?;
        let known = |(agent, key): &(&AgentId, &String)| ahead.is_some_and(|ahead| ahead.has(agent, key));
        let ahead = keys.iter().filter(known).map(|(agent, _)| agent.clone()).collect();
        Ok(Self { credential: credential.clone(), keys, ahead })
    }

    /// Why this agent can't get it, if it can't: its key is missing or is none.
    pub(super) fn refuses(&self, agent: &AgentId) -> Option<&'static str> {
        let good = |key: &String| {
            let jti = Jti::generate();
            seal::seal(b"", key, Binding { jti: &jti, agent, field: Sent::FIELD }).is_ok()
        };
        let can = self.ahead.contains(agent) || self.keys.get(agent).is_some_and(good);
        (!can).then_some(NO_KEY)
    }

    /// Those that showed a key.
    pub(super) fn agents(&self) -> Vec<AgentId> {
        self.keys.keys().cloned().collect()
    }

    /// The credential as some host would get it: people agree to all of it but what is sealed.
    pub(super) fn sample(&self) -> Option<Sent> {
        let one = |agent: &AgentId| {
            self.sealed(&MessageClaims { aud: vec![agent.clone()], iat: 0, exp: 0, jti: Jti::generate() })
                .ok()
        };
        self.keys.keys().find_map(one)
    }

    /// The credential in a message with these claims, which must be for one agent alone.
    pub(super) fn sealed(&self, claims: &MessageClaims) -> Result<Sent> {
        let [agent] = claims.aud.as_slice() else {
            return Err(Error::Internal("a credential in a message for more than one host".into()));
        };
        let key = self.keys.get(agent).ok_or_else(|| Error::Conflict(NO_KEY.into()))?;
        let binding = Binding { jti: &claims.jti, agent, field: Sent::FIELD };
        let secret = self.credential.secret().reveal();
        let sealed =
            seal::seal(secret.as_bytes(), key, binding).map_err(|_| Error::Conflict(NO_KEY.into()))?;
        Ok(Sent {
            kind: self.credential.kind(),
            username: self.credential.username().map(str::to_owned),
            known_hosts: self.credential.known_hosts().map(str::to_owned),
            sealed,
        })
    }
}

/// How many hosts may share a message that holds this, given what [`Sealing::refuses`] says.
pub(super) fn audience<'a>(
    sealing: Option<&Sealing>,
    refuses: &'a (dyn Fn(&AgentId) -> Option<&'static str> + Sync),
) -> Audience<'a> {
    if sealing.is_some() { Audience::Alone(refuses) } else { Audience::Shared }
}
