//! Who does something, as the trail names them.

use std::net::IpAddr;

use signet_common::AgentId;

/// The id of a request, as its answer and the log have it.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

/// Who does something, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// An account's name, `agent ID`, `nobody`, or a part of the controller.
    pub who: String,
    /// How they showed that: `session`, `token ID`, `admin token`, `key`.
    pub via: Option<String>,
    /// The true peer of the request.
    pub from: Option<IpAddr>,
    /// The request's id.
    pub request: Option<String>,
}

impl Author {
    /// A part of the controller itself.
    #[must_use]
    pub fn controller(part: &str) -> Self {
        Self { who: format!("controller: {part}"), via: None, from: None, request: None }
    }

    /// An agent, by what its key signed.
    #[must_use]
    pub fn agent(id: &AgentId) -> Self {
        Self { who: format!("agent {id}"), via: Some("key".into()), from: None, request: None }
    }

    /// The same request by an agent, which proved it with its key.
    #[must_use]
    pub fn with_key_of(&self, id: &AgentId) -> Self {
        Self { from: self.from, request: self.request.clone(), ..Self::agent(id) }
    }

    /// The same request by an account, which proved it with its password or a token.
    #[must_use]
    pub fn logged_in_as(&self, username: &str) -> Self {
        Self { who: username.to_owned(), ..self.clone() }
    }
}
