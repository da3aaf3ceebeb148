//! The signed message: DSSE v1 (Dead Simple Signing Envelope, <https://github.com/secure-systems-lab/dsse>).
//!
//! The signature covers `PAE(payloadType, body)`. On the queue the body is the plain JSON payload, the content type is
//! the payloadType, and the headers `keyid` and `sig` carry the rest. Stored and exported messages use DSSE's JSON form.
//! A message is verified first, and the very bytes that were verified are parsed.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::ids::{AgentId, Jti, KeyId};
use crate::keys::{KeyError, PublicKey, SigningKey};
use crate::limits::MESSAGE_BYTES_MAX;

/// What a message is. Its text form is DSSE's payloadType and AMQP's content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PayloadType {
    /// Run a command.
    Command,
    /// Deploy a git commit.
    Deploy,
    /// End a command or deploy.
    Cancel,
    /// Report again from here.
    Resume,
    /// One step of the keyring.
    Keyring,
    /// Events of an agent's journal.
    Report,
    /// An agent's sign of life.
    Heartbeat,
    /// An agent introduces itself, over HTTP.
    Hello,
    /// The controller's answer to a hello, over HTTP.
    Welcome,
    /// An agent asks that its own key be revoked, over HTTP.
    Leave,
    /// A block of the audit trail, in exports.
    AuditBlock,
}

impl PayloadType {
    /// Every type.
    pub const ALL: [Self; 11] = [
        Self::Command,
        Self::Deploy,
        Self::Cancel,
        Self::Resume,
        Self::Keyring,
        Self::Report,
        Self::Heartbeat,
        Self::Hello,
        Self::Welcome,
        Self::Leave,
        Self::AuditBlock,
    ];
    /// What agents take from their queue.
    pub const TO_AGENTS: &'static [Self] =
        &[Self::Command, Self::Deploy, Self::Cancel, Self::Resume, Self::Keyring];
    /// What the controller takes from its queues.
    pub const TO_CONTROLLER: &'static [Self] = &[Self::Report, Self::Heartbeat];

    /// The payloadType, `application/vnd.signet.command.v1+json` and so on.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Command => "application/vnd.signet.command.v1+json",
            Self::Deploy => "application/vnd.signet.deploy.v1+json",
            Self::Cancel => "application/vnd.signet.cancel.v1+json",
            Self::Resume => "application/vnd.signet.resume.v1+json",
            Self::Keyring => "application/vnd.signet.keyring.v1+json",
            Self::Report => "application/vnd.signet.report.v1+json",
            Self::Heartbeat => "application/vnd.signet.heartbeat.v1+json",
            Self::Hello => "application/vnd.signet.hello.v1+json",
            Self::Welcome => "application/vnd.signet.welcome.v1+json",
            Self::Leave => "application/vnd.signet.leave.v1+json",
            Self::AuditBlock => "application/vnd.signet.audit-block.v1+json",
        }
    }

    fn parse(text: &str) -> Result<Self, Refusal> {
        if let Some(found) = Self::ALL.into_iter().find(|t| t.as_str() == text) {
            return Ok(found);
        }
        // A known name with another version is told apart, so that a fleet in the middle of an upgrade can see it.
        let name =
            |t: &str| t.strip_suffix("+json").and_then(|t| t.rsplit_once(".v")).map(|(n, _)| n.to_owned());
        match name(text) {
            Some(stem) if Self::ALL.into_iter().any(|t| name(t.as_str()).as_deref() == Some(&stem)) => {
                Err(Refusal::Version)
            }
            _ => Err(Refusal::Type),
        }
    }
}

impl fmt::Display for PayloadType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a message was not believed. Also the label under which refusals are counted, in the order of the checks.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, thiserror::Error,
)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Larger than any message may be.
    #[error("larger than {MESSAGE_BYTES_MAX} bytes")]
    Size,
    /// `keyid` or `sig` is missing or malformed.
    #[error("keyid or sig is missing or malformed")]
    Headers,
    /// The key is not one that may speak here.
    #[error("unknown key")]
    Key,
    /// The signature is not the key's.
    #[error("bad signature")]
    Signature,
    /// A later version of the format.
    #[error("unknown version")]
    Version,
    /// Not a type that this direction allows.
    #[error("type not allowed here")]
    Type,
    /// The bytes are the key's, and not a message.
    #[error("malformed")]
    Malformed,
    /// For someone else.
    #[error("not addressed to this receiver")]
    Audience,
    /// Its `jti` is known.
    #[error("duplicate")]
    Duplicate,
    /// Past its `exp`, or issued before this log began.
    #[error("expired")]
    Expired,
    /// Its `iat` lies too far in the future.
    #[error("issued in the future")]
    Future,
    /// The agent takes no work now; it will be sent again.
    #[error("busy")]
    Busy,
}

impl Refusal {
    /// Every reason, in the order of the checks.
    pub const ALL: [Self; 12] = [
        Self::Size,
        Self::Headers,
        Self::Key,
        Self::Signature,
        Self::Version,
        Self::Type,
        Self::Malformed,
        Self::Audience,
        Self::Duplicate,
        Self::Expired,
        Self::Future,
        Self::Busy,
    ];

    /// The reason's label, as in heartbeats and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Headers => "headers",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Version => "version",
            Self::Type => "type",
            Self::Malformed => "malformed",
            Self::Audience => "audience",
            Self::Duplicate => "duplicate",
            Self::Expired => "expired",
            Self::Future => "future",
            Self::Busy => "busy",
        }
    }
}

/// A message as it travels: nothing in it is believed. This is what the bus carries and what the database stores.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope {
    /// DSSE's payloadType, unchecked.
    pub payload_type: String,
    /// The signer's key, unchecked.
    pub keyid: String,
    /// The signature in strict standard base64, unchecked.
    pub sig: String,
    /// The payload's exact bytes.
    pub body: Bytes,
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Bodies hold command texts and stdin; a log line must not.
        write!(f, "Envelope({}, key {}, {} bytes)", self.payload_type, self.keyid, self.body.len())
    }
}

impl Envelope {
    /// Signs a payload.
    ///
    /// # Errors
    /// [`SealError`] when the payload can't be written as JSON, is too large, or the library fails.
    pub fn sign<T: Serialize>(key: &SigningKey, kind: PayloadType, payload: &T) -> Result<Self, SealError> {
        let body = serde_json::to_vec(payload).map_err(|e| SealError::Json(e.to_string()))?;
        Self::sign_bytes(key, kind, body.into())
    }

    /// Signs bytes as they are, for a stored body that gets a newer key's signature.
    ///
    /// # Errors
    /// [`SealError`] when the body is too large or the library fails.
    pub fn sign_bytes(key: &SigningKey, kind: PayloadType, body: Bytes) -> Result<Self, SealError> {
        if body.len() > MESSAGE_BYTES_MAX {
            return Err(SealError::Size(body.len()));
        }
        let sig = STANDARD.encode(key.sign(&pae(kind.as_str(), &body))?);
        let keyid = key.public().id().to_string();
        Ok(Self { payload_type: kind.as_str().to_owned(), keyid, sig, body })
    }

    /// Checks size, headers, key and signature, in this order, and then the type.
    ///
    /// `key` finds the keys that may speak here. The answer holds the bytes that were verified.
    ///
    /// # Errors
    /// The first check that failed.
    pub fn verify(
        &self,
        allowed: &[PayloadType],
        key: impl FnOnce(&KeyId) -> Option<PublicKey>,
    ) -> Result<Authentic, Refusal> {
        if self.body.len() > MESSAGE_BYTES_MAX {
            return Err(Refusal::Size);
        }
        let keyid: KeyId = self.keyid.parse().map_err(|_| Refusal::Headers)?;
        let sig = STANDARD.decode(&self.sig).map_err(|_| Refusal::Headers)?;
        let key = key(&keyid).filter(|k| k.id() == &keyid).ok_or(Refusal::Key)?;
        if !key.verifies(&pae(&self.payload_type, &self.body), &sig) {
            return Err(Refusal::Signature);
        }
        let kind = PayloadType::parse(&self.payload_type)?;
        if !allowed.contains(&kind) {
            return Err(Refusal::Type);
        }
        Ok(Authentic { kind, key, body: self.body.clone() })
    }

    /// DSSE's JSON form.
    #[must_use]
    pub fn to_dsse(&self) -> DsseJson {
        DsseJson {
            payload: STANDARD.encode(&self.body),
            payload_type: self.payload_type.clone(),
            signatures: vec![DsseSignature { keyid: self.keyid.clone(), sig: self.sig.clone() }],
        }
    }
}

/// Why a message could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Not writable as JSON.
    #[error("payload is not JSON: {0}")]
    Json(String),
    /// Larger than a message may be, in bytes.
    #[error("message of {0} bytes is larger than {MESSAGE_BYTES_MAX}")]
    Size(usize),
    /// The key failed.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// DSSE's JSON envelope: `{"payload":base64,"payloadType":…,"signatures":[{"keyid","sig"}]}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DsseJson {
    /// The payload in base64.
    pub payload: String,
    /// The payloadType.
    #[serde(rename = "payloadType")]
    pub payload_type: String,
    /// One or more signatures over the same bytes.
    pub signatures: Vec<DsseSignature>,
}

/// One signature of a [`DsseJson`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DsseSignature {
    /// The signer's key.
    pub keyid: String,
    /// The signature in base64.
    pub sig: String,
}

impl DsseJson {
    /// One envelope per signature, all over the same body.
    ///
    /// # Errors
    /// [`Refusal::Headers`] when the payload is not base64 or nobody signed.
    pub fn envelopes(&self) -> Result<Vec<Envelope>, Refusal> {
        let body: Bytes = STANDARD.decode(&self.payload).map_err(|_| Refusal::Headers)?.into();
        if self.signatures.is_empty() {
            return Err(Refusal::Headers);
        }
        let one = |s: &DsseSignature| Envelope {
            payload_type: self.payload_type.clone(),
            keyid: s.keyid.clone(),
            sig: s.sig.clone(),
            body: body.clone(),
        };
        Ok(self.signatures.iter().map(one).collect())
    }

    /// The first signature's envelope.
    ///
    /// # Errors
    /// As [`DsseJson::envelopes`].
    pub fn envelope(&self) -> Result<Envelope, Refusal> {
        self.envelopes()?.into_iter().next().ok_or(Refusal::Headers)
    }
}

/// DSSE's pre-authentication encoding: `DSSEv1 SP len(type) SP type SP len(body) SP body`.
#[must_use]
pub fn pae(payload_type: &str, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload_type.len() + body.len() + 40);
    out.extend_from_slice(b"DSSEv1 ");
    out.extend_from_slice(payload_type.len().to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(payload_type.as_bytes());
    out.push(b' ');
    out.extend_from_slice(body.len().to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(body);
    out
}

/// The claims that every message has. `exp` is absent where a type has no time window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who says it: `controller`, or an agent's id.
    pub iss: String,
    /// Who it is for: agent ids, or `["controller"]`.
    pub aud: Vec<String>,
    /// When it was issued, in whole seconds since 1970.
    pub iat: i64,
    /// The last second in which it may be acted upon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exp: Option<i64>,
    /// The message's id.
    pub jti: Jti,
}

/// A message whose signature and type are right. Its content is still to be parsed.
#[derive(Debug, Clone)]
pub struct Authentic {
    kind: PayloadType,
    key: PublicKey,
    body: Bytes,
}

impl Authentic {
    /// What it is.
    #[must_use]
    pub fn kind(&self) -> PayloadType {
        self.kind
    }

    /// Whose it is.
    #[must_use]
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Parses the claims alone and refuses duplicate keys anywhere in the message.
    ///
    /// # Errors
    /// [`Refusal::Malformed`].
    pub fn claims(&self) -> Result<Claims, Refusal> {
        crate::strict::without_duplicates(&self.body).map_err(|_| Refusal::Malformed)?;
        serde_json::from_slice(&self.body).map_err(|_| Refusal::Malformed)
    }

    /// Checks the audience and parses the whole message.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] or [`Refusal::Audience`].
    pub fn open<T: DeserializeOwned>(&self, me: &Audience) -> Result<Verified<T>, Refusal> {
        let claims = self.claims()?;
        self.audience(&claims, me)?;
        self.parse()
    }

    /// Whether the message is for `me`.
    ///
    /// # Errors
    /// [`Refusal::Audience`].
    pub fn audience(&self, claims: &Claims, me: &Audience) -> Result<(), Refusal> {
        claims.aud.iter().any(|a| a == me.as_str()).then_some(()).ok_or(Refusal::Audience)
    }

    /// Parses the verified bytes. The type `T` decides whether unknown fields are an error.
    ///
    /// # Errors
    /// [`Refusal::Malformed`].
    pub fn parse<T: DeserializeOwned>(&self) -> Result<Verified<T>, Refusal> {
        let payload = serde_json::from_slice(&self.body).map_err(|_| Refusal::Malformed)?;
        Ok(Verified { payload, key: self.key.clone() })
    }
}

/// A receiver's name in `aud`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// Any controller of the installation.
    Controller,
    /// One agent.
    Agent(AgentId),
}

impl Audience {
    /// As it stands in `aud`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Controller => "controller",
            Self::Agent(id) => id.as_str(),
        }
    }
}

/// A payload that came out of a verified message. Nothing else can make one, and only this can be acted upon.
#[derive(Debug, Clone)]
pub struct Verified<T> {
    payload: T,
    key: PublicKey,
}

impl<T> Verified<T> {
    /// The payload.
    #[must_use]
    pub fn get(&self) -> &T {
        &self.payload
    }

    /// Gives the payload away; what is done with it is the caller's word.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.payload
    }

    /// Whose key signed it.
    #[must_use]
    pub fn key(&self) -> &PublicKey {
        &self.key
    }
}
