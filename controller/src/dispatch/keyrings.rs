//! Bringing hosts to the newest keyring, and noticing when they hold a newer one than the database.

use std::collections::{BTreeMap, HashMap};

use signet_common::envelope::PayloadType;
use signet_common::limits::AUDIENCE_MAX;
use signet_common::messages::KeyringPush;
use signet_common::time::Micros;
use signet_common::{AgentId, Jti};

use super::gate::KEYRING_OLD;
use super::reconciler::DERIVED_EXPIRY_SECONDS;
use super::service::Dispatch;
use crate::error::Result;
use crate::keys::FleetKeys;
use crate::limits::{BEHIND_SECONDS, RESUMES_MAX};

/// Whom this controller lately told something. Another controller may tell it once more, which does no harm.
#[derive(Debug, Default)]
pub(super) struct Told(HashMap<AgentId, Micros>);

impl Told {
    /// Each host once in 15 s.
    fn once(&mut self, agent: &AgentId, now: Micros) -> bool {
        self.0.retain(|_, at| at.plus_seconds(BEHIND_SECONDS) > now);
        if self.0.contains_key(agent) {
            return false;
        }
        self.0.insert(agent.clone(), now);
        true
    }

    /// Each host once in 15 s, and 50 hosts in a second: a restored database may not know the starts of a whole fleet.
    pub(super) fn may_ask(&mut self, agent: &AgentId, now: Micros) -> bool {
        let lately = self.0.values().filter(|at| at.plus_seconds(1) > now).count();
        lately < RESUMES_MAX && self.once(agent, now)
    }
}

/// What the sweeping controller remembers about keyrings.
#[derive(Debug, Default)]
pub(super) struct Keyrings {
    /// Who was sent which version.
    pushed: HashMap<u64, Told>,
    asked: Told,
}

impl Dispatch {
    /// Sends the next keyring to hosts that are one behind, and asks those further behind to say hello. Not held by the
    /// pause switch.
    pub(super) async fn share_keyrings(&self, memory: &mut Keyrings, now: Micros) -> Result<()> {
        let keys = self.keys().newest(self.store()).await?;
        self.note_newer(&keys).await?;
        let behind = self.hosts().behind_on_keyring(keys.version(), now).await?;
        // Who was sent an older version may need this one at once.
        memory.pushed.retain(|version, _| *version == keys.version());
        if behind.is_empty() {
            return Ok(());
        }
        let (mut next, mut far) = (Vec::new(), Vec::new());
        for (agent, holds) in behind {
            if holds + 1 == keys.version() {
                if memory.pushed.entry(keys.version()).or_default().once(&agent, now) {
                    next.push(agent);
                }
            } else if memory.asked.may_ask(&agent, now) {
                far.push((agent, holds));
            }
        }
        self.push_keyring(&keys, &next, now)?;
        self.ask_for_hello(&far, now)
    }

    fn push_keyring(&self, keys: &FleetKeys, agents: &[AgentId], now: Micros) -> Result<()> {
        let Some(keyring) = keys.link(keys.version()) else { return Ok(()) };
        for some in agents.chunks(AUDIENCE_MAX) {
            let push = KeyringPush {
                iss: "controller".into(),
                aud: some.to_vec(),
                iat: now.seconds(),
                exp: now.seconds() + DERIVED_EXPIRY_SECONDS,
                jti: Jti::generate(),
                keyring: keyring.clone(),
            };
            tracing::info!(version = keys.version(), agents = ?some, "sending the next keyring");
            let key = keys.signing_for(keys.version() - 1);
            self.publish_to(key, some, PayloadType::Keyring, &push)?;
        }
        Ok(())
    }

    /// Holds dispatch while an accepted host holds a newer keyring than the database has: it was restored, or is not this
    /// fleet's, and what it signs with may be revoked.
    async fn note_newer(&self, keys: &FleetKeys) -> Result<()> {
        let newer = self.hosts().ahead_on_keyring(keys.version()).await?;
        let hosts: Vec<String> = newer.iter().map(|(host, holds)| format!("{host} holds {holds}")).collect();
        let why = match hosts.as_slice() {
            [] => String::new(),
            some => format!(
                "the newest keyring in the database is version {}, and {}: the database is older than the fleet's keys",
                keys.version(),
                some.join(", ")
            ),
        };
        if self.keyring_old().await?.unwrap_or_default() != why {
            if why.is_empty() {
                tracing::warn!("no host holds a newer keyring any more; dispatch goes on");
            } else {
                tracing::error!(why, "dispatch is held");
            }
            self.put_setting(KEYRING_OLD, &why).await?;
        }
        Ok(())
    }
}

/// Agents by the keyring that they hold.
pub(super) fn by_keyring(agents: impl IntoIterator<Item = (AgentId, u64)>) -> BTreeMap<u64, Vec<AgentId>> {
    let mut all: BTreeMap<u64, Vec<AgentId>> = BTreeMap::new();
    for (agent, holds) in agents {
        all.entry(holds).or_default().push(agent);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_asked_once_in_a_while_and_a_fleet_little_by_little() {
        let agent = |n: usize| format!("{n:040x}").parse::<AgentId>().unwrap();
        let (mut asked, now) = (Told::default(), Micros::from_seconds(1_000));
        let at_once = (0..200).filter(|&n| asked.may_ask(&agent(n), now)).count();
        assert_eq!(at_once, RESUMES_MAX);
        assert!(!asked.may_ask(&agent(0), now.plus_seconds(BEHIND_SECONDS - 1)), "asked a moment ago");
        assert!(asked.may_ask(&agent(100), now.plus_seconds(2)));
        assert!(asked.may_ask(&agent(0), now.plus_seconds(BEHIND_SECONDS)));
    }
}
