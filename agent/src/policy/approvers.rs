//! Whether enough people signed what is to run here.
//!
//! A host that lists `[approvers]` believes their SSH keys and not the controller, so that not even a stolen controller
//! can run anything there. That the same statement starts nothing twice is the journal's part: see [`crate::used`].

use std::collections::BTreeSet;

use serde::Deserialize;
use signet_common::allowed_signers::{AllowedSigners, Principal};
use signet_common::limits::APPROVAL_SIGNATURES_MAX;
use signet_common::sshsig;
use signet_common::statement::{Agreeable, Approval, NAMESPACE, Statement};

use super::{Denied, Here, deny};

/// As the file says it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    count: usize,
    allowed_signers: String,
}

/// Who must have signed what runs here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approvers {
    count: usize,
    signers: AllowedSigners,
}

impl Approvers {
    pub(super) fn read(written: &Written) -> Result<Self, String> {
        let signers = AllowedSigners::parse(&written.allowed_signers, NAMESPACE)
            .map_err(|bad| format!("approvers: allowed_signers, {bad}"))?;
        let (count, people) = (written.count, signers.people().len());
        if count == 0 {
            return Err("approvers: count must be at least 1".into());
        }
        if people < count {
            return Err(format!("approvers: {count} are needed, and allowed_signers names only {people}"));
        }
        Ok(Self { count, signers })
    }

    /// How many different people must have signed.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Who may.
    #[must_use]
    pub fn people(&self) -> Vec<&Principal> {
        self.signers.people()
    }

    /// Whether enough of them signed this statement, at this time.
    fn agreed(&self, approval: &Approval, statement: &Statement, here: &Here<'_>) -> Result<(), Denied> {
        // What a log before this one knew is gone, also which statements were used; it may have ended in this second.
        if statement.requested_at <= here.log_began {
            return deny(
                "it was requested before this host's log began; have it requested and approved again",
            );
        }
        let mut people = BTreeSet::new();
        let mut others = Vec::new();
        for signature in &approval.signatures {
            match self.signed(signature, approval, statement, here) {
                Ok(person) => people.insert(person),
                Err(why) => {
                    others.push(why);
                    continue;
                }
            };
            if people.len() >= self.count {
                return Ok(());
            }
        }
        let mut why = format!("this host needs {} approvals, and {} count", self.count, people.len());
        if !people.is_empty() {
            why += &format!(" ({})", listed(people));
        }
        if !others.is_empty() {
            why += &format!("; not counted: {}", others.join("; "));
        }
        deny(why)
    }

    /// Whose signature counts, or why it doesn't.
    fn signed(
        &self,
        signature: &str,
        approval: &Approval,
        statement: &Statement,
        here: &Here<'_>,
    ) -> Result<&Principal, String> {
        let key = sshsig::verify(signature, NAMESPACE, &approval.statement).map_err(|bad| bad.to_string())?;
        let Some(person) = self.signers.signer(&key, here.now) else {
            return Err(format!("{} is no approver's key", key.fingerprint()));
        };
        if person.may_be(&statement.requester) {
            return Err(format!("{person} is who asked for it"));
        }
        Ok(person)
    }
}

/// Whether what people agreed to is this, and enough of them did. Without approvers nobody needs to, but a message that
/// contradicts its own approval is refused everywhere.
pub(super) fn judge<M: Agreeable>(
    approvers: Option<&Approvers>,
    message: &M,
    here: &Here<'_>,
) -> Result<(), Denied> {
    let Some(approval) = message.approval() else {
        return match approvers {
            None => Ok(()),
            Some(a) => deny(format!(
                "this host needs {} approvals (of {}), and it came without",
                a.count,
                listed(a.people())
            )),
        };
    };
    if approval.signatures.len() > APPROVAL_SIGNATURES_MAX {
        return deny(format!("more than {APPROVAL_SIGNATURES_MAX} signatures"));
    }
    let statement = Statement::parse(&approval.statement).map_err(|e| Denied(e.to_string()))?;
    statement.covers(message, here.me).map_err(|e| Denied(e.to_string()))?;
    if statement.not_after < here.now {
        return deny("its approval is over");
    }
    approvers.map_or(Ok(()), |approvers| approvers.agreed(approval, &statement, here))
}

/// Names, for a person.
fn listed<'a>(people: impl IntoIterator<Item = &'a Principal>) -> String {
    people.into_iter().map(Principal::as_str).collect::<Vec<_>>().join(", ")
}
