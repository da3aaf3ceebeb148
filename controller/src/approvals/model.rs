//! Rules, and what they ask of a request: pure types and functions.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use signet_common::statement::Kind;
use utoipa::ToSchema;

/// What a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RuleTarget {
    /// What is asked for with the target `all`.
    All,
    /// What is for any host of this group, however it was targeted.
    Group(String),
}

/// What needs the approval of how many others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its id.
    pub id: String,
    /// What it is about.
    pub target: RuleTarget,
    /// How many others must agree.
    pub approvals: u32,
    /// The kinds of work that it is about.
    pub kinds: Vec<Kind>,
    /// Seconds in which they must.
    pub expires_in: u32,
}

/// What a request needs before it may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// How many others must agree.
    pub approvals: u32,
    /// Seconds in which they must.
    pub wait: u32,
}

/// What these rules ask of a request for hosts of these groups; `all`: its target is all hosts. Of several the one that
/// asks for the most counts, and of equals the one that waits for the shortest time.
#[must_use]
pub(super) fn needed(rules: &[Rule], kind: Kind, all: bool, groups: &BTreeSet<&str>) -> Option<Need> {
    let applies = |rule: &&Rule| {
        let about = match &rule.target {
            RuleTarget::All => all,
            RuleTarget::Group(group) => groups.contains(group.as_str()),
        };
        about && rule.kinds.contains(&kind)
    };
    let most = rules.iter().filter(applies).max_by_key(|r| (r.approvals, u32::MAX - r.expires_in))?;
    Some(Need { approvals: most.approvals, wait: most.expires_in })
}

/// What became of a request for approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It waits.
    Awaiting,
    /// Enough agreed: it was let go.
    Approved,
    /// Somebody refused it.
    Refused,
    /// It ended before there was a decision: it expired, was cancelled, or its hosts went away.
    Ended,
}

impl State {
    /// As on the wire and in the database. `ended` is not stored: the deliveries tell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Awaiting => "awaiting",
            Self::Approved => "approved",
            Self::Refused => "refused",
            Self::Ended => "ended",
        }
    }

    /// From the wire or the database.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Awaiting, Self::Approved, Self::Refused, Self::Ended].into_iter().find(|s| s.as_str() == text)
    }

    /// What is shown of a stored state when the task is still held, or not.
    #[must_use]
    pub const fn shown(self, held: bool) -> Self {
        match self {
            Self::Awaiting if !held => Self::Ended,
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(target: RuleTarget, approvals: u32, kinds: &[Kind], expires_in: u32) -> Rule {
        Rule { id: "r".into(), target, approvals, kinds: kinds.to_vec(), expires_in }
    }

    #[test]
    fn the_rule_that_asks_for_the_most_counts() {
        let both = [Kind::Command, Kind::Deploy];
        let prod = || RuleTarget::Group("prod".into());
        let rules = [
            rule(RuleTarget::All, 1, &both, 100),
            rule(prod(), 2, &[Kind::Command], 50),
            rule(prod(), 2, &[Kind::Command], 40),
            rule(prod(), 3, &[Kind::Deploy], 10),
        ];
        let asked = |kind, all, groups: &[&str]| {
            needed(&rules, kind, all, &groups.iter().copied().collect()).map(|n| (n.approvals, n.wait))
        };
        assert_eq!(asked(Kind::Command, false, &["web"]), None);
        assert_eq!(asked(Kind::Command, true, &["web"]), Some((1, 100)));
        assert_eq!(asked(Kind::Command, true, &["prod", "web"]), Some((2, 40)));
        assert_eq!(asked(Kind::Command, false, &["prod"]), Some((2, 40)));
        assert_eq!(asked(Kind::Deploy, false, &["prod"]), Some((3, 10)));
        assert_eq!(needed(&[], Kind::Command, true, &BTreeSet::from(["prod"])), None);
    }

    #[test]
    fn what_is_held_no_more_and_was_never_decided_has_ended() {
        assert_eq!(State::Awaiting.shown(false), State::Ended);
        assert_eq!(State::Awaiting.shown(true), State::Awaiting);
        assert_eq!(State::Refused.shown(false), State::Refused);
    }
}
