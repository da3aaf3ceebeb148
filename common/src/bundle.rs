//! A task as proof: what was asked, who agreed, and what each host said, each signed by who said it.
//!
//! A bundle is a DSSE envelope of type `bundle`, signed by the fleet's key when it is exported. Inside are the chain of
//! the fleet's keys, the signed commands, the agents' public keys and their signed reports. [`check`] needs nothing but
//! the fingerprint of one of the fleet's keys: a command names its hosts, a host's id is the fingerprint of its key, and
//! the command carries what approvers signed.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::allowed_signers::AllowedSigners;
use crate::chain::Chained;
use crate::envelope::{Audience, DsseJson, Envelope, PayloadType, SealError};
use crate::ids::{AgentId, Hostname, Jti, KeyId, TaskId};
use crate::keyring::{History, KeyringError};
use crate::keys::{PublicKey, SigningKey};
use crate::limits::BUNDLE_BYTES_MAX;
use crate::messages::{Command, Event, Report};
use crate::sshsig::{self, SshPublicKey};
use crate::statement::{NAMESPACE, Statement};

/// The payload of type `bundle`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// The task.
    pub task_id: TaskId,
    /// Exported at, whole seconds since 1970.
    pub iat: i64,
    /// Every version of the keyring, oldest first.
    pub keyring: Vec<DsseJson>,
    /// What was sent.
    pub messages: Vec<Message>,
    /// What agents said about the ends, each report once.
    pub reports: Vec<SignedReport>,
    /// Every host that the task was for, by name.
    pub targets: Vec<Target>,
}

/// A signed command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Its id.
    pub jti: Jti,
    /// As signed; absent when it is withheld, because it held values of an environment or an input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envelope: Option<DsseJson>,
}

/// A signed report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedReport {
    /// Its id.
    pub jti: Jti,
    /// The agent's key in PEM.
    pub public_key: String,
    /// As signed.
    pub envelope: DsseJson,
}

/// A host of the task, as the controller has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The host.
    pub hostname: Hostname,
    /// Its agent; absent when it had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<AgentId>,
    /// The message for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<Jti>,
    /// Where it stands.
    pub state: String,
    /// Why, for a person.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The exit code, if it ended with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The report that tells its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Jti>,
}

/// Why a bundle proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoProof {
    /// Not a bundle.
    #[error("this is no bundle: {0}")]
    Malformed(String),
    /// The keys are not the fleet's.
    #[error("the keyring is not believed: {0}")]
    Keyring(#[from] KeyringError),
    /// Not signed by the fleet.
    #[error("{0} is not signed by the fleet's key")]
    Controller(String),
    /// A report is not signed by its agent.
    #[error("the report about {0} is not signed by its agent")]
    Agent(Hostname),
    /// A command, its hosts and its approval don't fit together.
    #[error("{0}")]
    Contradiction(String),
}

/// What is known of one host's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// Its agent signed it.
    Agent,
    /// The controller alone says so: the host never got it, never answered, or its report is kept no more.
    Claim,
}

/// What a bundle proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The task.
    pub task_id: TaskId,
    /// The command, from a message; absent when all are withheld.
    pub command: Option<Command>,
    /// Messages that are withheld.
    pub withheld: usize,
    /// What was approved; absent when nothing had to be, or it is withheld.
    pub approved: Option<Approved>,
    /// Every host with its state, and who says so.
    pub targets: Vec<(Target, Proof)>,
}

/// Who agreed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approved {
    /// Who asked.
    pub requester: String,
    /// Everybody who agreed, by the controller's word.
    pub approvers: Vec<String>,
    /// The keys that signed the statement, and with a list of signers whose they are.
    pub signatures: Vec<(SshPublicKey, Option<String>)>,
}

impl Approved {
    /// How many agreed without a key: the controller alone says so.
    #[must_use]
    pub fn without_key(&self) -> usize {
        self.approvers.len().saturating_sub(self.signatures.len())
    }
}

impl Bundle {
    /// Signs it.
    ///
    /// # Errors
    /// [`SealError::Size`] above [`BUNDLE_BYTES_MAX`], and when signing fails.
    pub fn sign(&self, key: &SigningKey) -> Result<DsseJson, SealError> {
        let body = serde_json::to_vec(self).map_err(|e| SealError::Json(e.to_string()))?;
        let signed = Envelope::sign_within(BUNDLE_BYTES_MAX, key, PayloadType::Bundle, body.into());
        Ok(signed?.to_dsse())
    }
}

/// Checks a bundle. The fleet is believed because one of its keys has this fingerprint; `signers` tell whose SSH keys
/// approved.
///
/// # Errors
/// [`NoProof`], at the first thing that does not hold.
pub fn check(text: &str, anchor: &KeyId, signers: Option<&AllowedSigners>) -> Result<Proven, NoProof> {
    let malformed = |e: &dyn std::fmt::Display| NoProof::Malformed(e.to_string());
    let signed: DsseJson = serde_json::from_str(text).map_err(|e| malformed(&e))?;
    let envelope = signed.envelope().map_err(|e| malformed(&e))?;
    // Read before it is believed, for the keys alone: they are proven by the chain up to the fingerprint.
    let claimed: Bundle = serde_json::from_slice(&envelope.body).map_err(|e| malformed(&e))?;
    let keys = History::believed(&claimed.keyring, anchor)?;
    // Any older key may have been stolen; an export is signed with the newest.
    let newest = |id: &KeyId| keys.newest().filter(|key| key.id() == id).cloned();
    let outer = signed.signatures.len() == 1
        && envelope.verify_within(BUNDLE_BYTES_MAX, &[PayloadType::Bundle], newest).is_ok();
    if !outer {
        return Err(NoProof::Controller("the bundle".into()));
    }
    crate::strict::without_duplicates(&envelope.body).map_err(|e| malformed(&e))?;
    Contents { bundle: &claimed, keys: &keys, signers }.check()
}

/// Whether two messages of a task are the same but for their claims.
fn same(a: &Command, b: &Command) -> bool {
    let claims = (b.aud.clone(), b.iat, b.exp, b.jti.clone());
    let (aud, iat, exp, jti) = claims;
    Command { aud, iat, exp, jti, ..a.clone() } == *b
}

/// A bundle whose own signature holds.
struct Contents<'a> {
    bundle: &'a Bundle,
    keys: &'a History,
    signers: Option<&'a AllowedSigners>,
}

fn contradiction<T>(why: impl Into<String>) -> Result<T, NoProof> {
    Err(NoProof::Contradiction(why.into()))
}

impl Contents<'_> {
    fn check(&self) -> Result<Proven, NoProof> {
        let (bundle, mut approved, mut command, mut withheld) = (self.bundle, None, None, 0);
        let mut audiences: BTreeMap<&Jti, Option<BTreeSet<AgentId>>> = BTreeMap::new();
        for message in &bundle.messages {
            let audience = match &message.envelope {
                Some(signed) => {
                    let found = self.message(message, signed)?;
                    if command.as_ref().is_some_and(|first| !same(first, &found)) {
                        return contradiction(
                            "the task's messages are not the same command with the same approval",
                        );
                    }
                    approved = self.approval(&found)?;
                    let audience = found.aud.iter().cloned().collect();
                    command = Some(found);
                    Some(audience)
                }
                None => {
                    withheld += 1;
                    None
                }
            };
            if audiences.insert(&message.jti, audience).is_some() {
                return contradiction(format!("message {} is there twice", message.jti));
            }
        }
        self.hosts(&audiences)?;
        let reports = self.reports()?;
        let targets = bundle.targets.iter().map(|target| Ok((target.clone(), self.end(target, &reports)?)));
        let targets = targets.collect::<Result<_, NoProof>>()?;
        Ok(Proven { task_id: bundle.task_id.clone(), command, withheld, approved, targets })
    }

    fn message(&self, message: &Message, signed: &DsseJson) -> Result<Command, NoProof> {
        let refused = || NoProof::Controller(format!("message {}", message.jti));
        let envelope = signed.envelope().map_err(|_| refused())?;
        let known = |id: &KeyId| self.keys.find(id).map(|(_, key)| key.clone());
        let verified = envelope.verify(&[PayloadType::Command], known).map_err(|_| refused())?;
        let command = verified.parse::<Command>().map_err(|_| refused())?.into_inner();
        if command.jti != message.jti || command.task_id != self.bundle.task_id {
            return contradiction(format!("message {} belongs to another task", message.jti));
        }
        Ok(command)
    }

    /// What approvers agreed to must be this, for each of its hosts.
    fn approval(&self, command: &Command) -> Result<Option<Approved>, NoProof> {
        let Some(approval) = &command.approval else { return Ok(None) };
        let disagree = |e: &dyn std::fmt::Display| NoProof::Contradiction(e.to_string());
        let statement = Statement::parse(&approval.statement).map_err(|e| disagree(&e))?;
        for agent in &command.aud {
            statement.covers(command, agent).map_err(|e| disagree(&e))?;
        }
        let mut signatures: Vec<(SshPublicKey, Option<String>)> = Vec::new();
        for armored in &approval.signatures {
            let key = sshsig::verify(armored, NAMESPACE, &approval.statement).map_err(|e| disagree(&e))?;
            if signatures.iter().any(|(known, _)| *known == key) {
                return contradiction("an approver's signature is there twice");
            }
            let who = self.signers.and_then(|signers| signers.signer(&key, command.iat));
            if self.signers.is_some() && who.is_none() {
                return contradiction(format!("{} is no allowed signer", key.fingerprint()));
            }
            if who.as_ref().is_some_and(|who| who.may_be(&statement.requester)) {
                return contradiction("who asked for it approved it too");
            }
            let who = who.map(ToString::to_string);
            if who.is_some() && signatures.iter().any(|(_, other)| *other == who) {
                return contradiction("one person's two keys stand for two approvers");
            }
            signatures.push((key, who));
        }
        let targets: BTreeSet<&AgentId> =
            self.bundle.targets.iter().filter_map(|t| t.agent_id.as_ref()).collect();
        if let Some(agent) = statement.agents.iter().find(|agent| !targets.contains(agent)) {
            return contradiction(format!("agent {agent} was approved, and is not among the targets"));
        }
        if approval.approvers.len() < signatures.len() {
            return contradiction("there are more signatures than approvers");
        }
        let approvers = approval.approvers.clone();
        Ok(Some(Approved { requester: statement.requester, approvers, signatures }))
    }

    /// Each host of a message is a target, and each target with a message is one of its hosts.
    fn hosts(&self, audiences: &BTreeMap<&Jti, Option<BTreeSet<AgentId>>>) -> Result<(), NoProof> {
        let mut left = audiences.clone();
        let mut names = BTreeSet::new();
        for target in &self.bundle.targets {
            let host = &target.hostname;
            if !names.insert(host) {
                return contradiction(format!("{host} is there twice"));
            }
            let Some(jti) = &target.jti else { continue };
            let Some(audience) = left.get_mut(jti) else {
                return contradiction(format!("the message for {host} is missing"));
            };
            let Some(agent) = &target.agent_id else {
                return contradiction(format!("{host} has a message and no agent"));
            };
            if audience.as_mut().is_some_and(|audience| !audience.remove(agent)) {
                return contradiction(format!("the message for {host} was not for its agent"));
            }
        }
        match left.into_values().flatten().flatten().next() {
            Some(agent) => {
                contradiction(format!("agent {agent} was to run it, and is not among the targets"))
            }
            None => Ok(()),
        }
    }

    /// The reports by their ids, each with the agent that signed it.
    fn reports(&self) -> Result<BTreeMap<&Jti, (AgentId, Vec<Event>)>, NoProof> {
        let mut all = BTreeMap::new();
        for report in &self.bundle.reports {
            let about = self.bundle.targets.iter().find(|target| target.report.as_ref() == Some(&report.jti));
            let Some(about) = about else {
                return contradiction(format!("report {} is about none of the targets", report.jti));
            };
            let refused = || NoProof::Agent(about.hostname.clone());
            let key = PublicKey::from_pem(&report.public_key).map_err(|_| refused())?;
            let envelope = report.envelope.envelope().map_err(|_| refused())?;
            let verified =
                envelope.verify(&[PayloadType::Report], |_| Some(key.clone())).map_err(|_| refused())?;
            let said = verified.open::<Report>(&Audience::Controller).map_err(|_| refused())?.into_inner();
            if said.iss != key.agent_id().as_str() || said.jti != report.jti {
                return Err(refused());
            }
            let event = |text: &serde_json::value::RawValue| Chained::parse(text.get().to_owned());
            let events = said.events.iter().map(|text| event(text)).collect::<Result<Vec<_>, _>>();
            let events = events.map_err(|_| refused())?.into_iter().map(|chained| chained.event).collect();
            if all.insert(&report.jti, (key.agent_id(), events)).is_some() {
                return contradiction(format!("report {} is there twice", report.jti));
            }
        }
        Ok(all)
    }

    /// Whether the agent's own word is what the controller says of its host.
    fn end(
        &self,
        target: &Target,
        reports: &BTreeMap<&Jti, (AgentId, Vec<Event>)>,
    ) -> Result<Proof, NoProof> {
        let host = &target.hostname;
        let Some(report) = &target.report else { return Ok(Proof::Claim) };
        let (Some((agent, events)), Some(jti)) = (reports.get(report), &target.jti) else {
            return contradiction(format!("the report about {host} is missing"));
        };
        if target.agent_id.as_ref() != Some(agent) {
            return contradiction(format!("the report about {host} is another agent's"));
        }
        let told = events.iter().rev().find_map(|event| match event {
            Event::Result { jti: of, result, .. } if of == jti => {
                let state = serde_json::to_value(result.outcome).ok()?.as_str()?.to_owned();
                Some((state, result.exit_code))
            }
            Event::Rejected { jti: of, .. } if of == jti => Some(("rejected".to_owned(), None)),
            _ => None,
        });
        if told != Some((target.state.clone(), target.exit_code)) {
            return contradiction(format!("the agent of {host} says something else than {}", target.state));
        }
        Ok(Proof::Agent)
    }
}
