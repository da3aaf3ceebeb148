//! The message of what was approved: the statement's fields, with claims of its own.

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use signet_common::deploy::{Credential, Deploy, Phase};
use signet_common::envelope::PayloadType;
use signet_common::limits::{AUDIENCE_MAX, MESSAGE_BYTES_MAX, SSH_SIGNATURE_BYTES_MAX};
use signet_common::messages::Command;
use signet_common::statement::{Agreeable, Approval, Kind, NotAgreed, Statement};
use signet_common::{AgentId, TaskId};

use super::model::Need;
use crate::dispatch::MessageClaims;
use crate::error::{Error, Result};
use crate::limits::USERNAME_BYTES_MAX;
use crate::store::Tx;

/// What is to be approved.
#[derive(Debug, Clone, Copy)]
pub enum Work<'a> {
    /// A command.
    Command(&'a Command),
    /// A deployment.
    Deploy(&'a Deploy),
}

/// Seals what a message carries for its one host.
pub type Seal = Box<dyn Fn(&MessageClaims) -> Result<Credential> + Send + Sync>;

/// Knows more of deployments that were held than their statements say.
#[async_trait]
pub trait Holder: Send + Sync {
    /// Seals the credential of this task's messages: no statement has it, because each host gets its own sealed form.
    ///
    /// # Errors
    /// 409 when it is no longer kept; the database's.
    async fn seal(&self, tx: &mut Tx, task: &TaskId) -> Result<Seal>;
    /// Takes note that these people let the task go, as the last step of that transaction; of what is no deployment it is
    /// told as well.
    ///
    /// # Errors
    /// The database's.
    async fn released(&self, tx: &mut Tx, task: &TaskId, by: &[String]) -> Result<()>;
}

/// The field of a deployment that is sealed anew for each host.
pub(super) const CREDENTIAL: &str = "credential";

impl Work<'_> {
    /// What it carries sealed, as large as it will be.
    pub(super) fn credential(self) -> Option<Credential> {
        match self {
            Self::Command(_) => None,
            Self::Deploy(deploy) => deploy.credential.clone(),
        }
    }

    pub(super) fn statement(
        self,
        requester: &str,
        not_after: i64,
        agents: Vec<AgentId>,
    ) -> Result<Statement, NotAgreed> {
        match self {
            Self::Command(command) => Statement::of_command(command, requester, not_after, agents),
            Self::Deploy(deploy) => Statement::of_deploy(deploy, requester, not_after, agents),
        }
    }
}

pub(super) const fn payload_type(kind: Kind) -> PayloadType {
    match kind {
        Kind::Command => PayloadType::Command,
        Kind::Deploy => PayloadType::Deploy,
    }
}

fn internal(error: impl std::fmt::Display) -> Error {
    Error::Internal(error.to_string())
}

/// A message of what was approved, with its credential if it has one.
pub(super) fn body(
    statement: &Statement,
    approval: &Approval,
    claims: &MessageClaims,
    credential: Option<Credential>,
) -> Result<Vec<u8>> {
    let mut fields = statement.message.clone();
    let claimed = [
        ("iss", serde_json::to_value("controller")),
        ("aud", serde_json::to_value(&claims.aud)),
        ("iat", serde_json::to_value(claims.iat)),
        ("exp", serde_json::to_value(claims.exp)),
        ("jti", serde_json::to_value(&claims.jti)),
        ("task_id", serde_json::to_value(&statement.task_id)),
        ("approval", serde_json::to_value(approval)),
    ];
    for (name, value) in claimed {
        fields.insert(name.to_owned(), value.map_err(internal)?);
    }
    match statement.kind {
        Kind::Command => covered::<Command>(statement, fields, claims),
        Kind::Deploy => {
            fields.insert("phase".to_owned(), serde_json::to_value(Phase::Deploy).map_err(internal)?);
            if let Some(credential) = credential {
                fields.insert(CREDENTIAL.to_owned(), serde_json::to_value(credential).map_err(internal)?);
            }
            covered::<Deploy>(statement, fields, claims)
        }
    }
}

/// The bytes of a message that is what was approved, as the hosts will see it.
fn covered<M: Agreeable + DeserializeOwned>(
    statement: &Statement,
    fields: Map<String, Value>,
    claims: &MessageClaims,
) -> Result<Vec<u8>> {
    let message: M = serde_json::from_value(fields.into()).map_err(internal)?;
    // The repository's credential may have become another one meanwhile.
    let differs = |why: NotAgreed| Error::Conflict(format!("{why}; have it requested and approved again"));
    claims.aud.first().map_or(Ok(()), |host| statement.covers(&message, host)).map_err(differs)?;
    serde_json::to_vec(&message).map_err(internal)
}

/// Refuses what would be too large to be sent once it was approved, with a signature by everybody who is needed.
pub(super) fn fits(
    statement: &Statement,
    bytes: &[u8],
    need: Need,
    credential: Option<Credential>,
) -> Result<()> {
    let claims = MessageClaims {
        aud: statement.agents.iter().take(AUDIENCE_MAX).cloned().collect(),
        iat: statement.not_after,
        exp: statement.not_after,
        jti: signet_common::Jti::generate(),
    };
    let approvers = vec!["x".repeat(USERNAME_BYTES_MAX); need.approvals as usize];
    let approval = Approval { statement: bytes.to_vec(), approvers, signatures: Vec::new() };
    let plain = body(statement, &approval, &claims, credential)?.len();
    // As JSON each line's end counts twice; its lines are longer than 32 characters.
    let signatures = need.approvals as usize * (SSH_SIGNATURE_BYTES_MAX + SSH_SIGNATURE_BYTES_MAX / 32);
    if plain + signatures > MESSAGE_BYTES_MAX {
        let what = match statement.kind {
            Kind::Command => "command, env, stdin",
            Kind::Deploy => "hooks, signers",
        };
        return Err(Error::TooLarge(format!(
            "{what} and the hosts of what needs approval are together too large for one message of \
             {MESSAGE_BYTES_MAX} bytes"
        )));
    }
    Ok(())
}
