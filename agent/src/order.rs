//! What a message can have an agent start.

use signet_common::deploy::Deploy;
use signet_common::envelope::Verified;
use signet_common::ids::Jti;
use signet_common::messages::Command;
use signet_common::statement::{Agreeable, Approval};

use crate::policy::{Denied, Here, Policy};

/// A verified message that starts something, once.
#[derive(Debug)]
pub enum Order {
    /// Run a command.
    Command(Box<Verified<Command>>),
    /// Deploy a commit.
    Deploy(Box<Verified<Deploy>>),
}

impl Order {
    /// The message's id.
    #[must_use]
    pub fn jti(&self) -> &Jti {
        match self {
            Self::Command(m) => &m.get().jti,
            Self::Deploy(m) => &m.get().jti,
        }
    }

    /// When it was issued, whole seconds since 1970.
    #[must_use]
    pub fn iat(&self) -> i64 {
        match self {
            Self::Command(m) => m.get().iat,
            Self::Deploy(m) => m.get().iat,
        }
    }

    /// The last second in which it may start, since 1970.
    #[must_use]
    pub fn exp(&self) -> i64 {
        match self {
            Self::Command(m) => m.get().exp(),
            Self::Deploy(m) => m.get().exp(),
        }
    }

    /// What people agreed to, as it came.
    #[must_use]
    pub fn approval(&self) -> Option<&Approval> {
        match self {
            Self::Command(m) => m.get().approval(),
            Self::Deploy(m) => m.get().approval(),
        }
    }

    /// Whether the policy lets it start here and now.
    ///
    /// # Errors
    /// The rule that forbids it.
    pub fn allowed(&self, policy: &Policy, here: &Here<'_>) -> Result<(), Denied> {
        match self {
            Self::Command(m) => policy.allows(m.get(), here),
            Self::Deploy(m) => policy.allows_deploy(m.get(), here),
        }
    }

    /// Whether it has to come again; see [`Policy::is_early`].
    #[must_use]
    pub fn is_early(&self, policy: &Policy, clock: i64) -> bool {
        match self {
            Self::Command(m) => policy.is_early(m.get(), clock),
            Self::Deploy(m) => policy.is_early(m.get(), clock),
        }
    }
}
