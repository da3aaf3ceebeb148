//! Liveness: what heartbeats say, kept for everyone.

use std::collections::BTreeMap;

use signet_common::AgentId;
use signet_common::envelope::Refusal;
use signet_common::messages::{FEATURES, Heartbeat};
use signet_common::time::Micros;

use super::beat_store::{self, BeatValues};
use super::deployments;
use super::model::ONLINE_SECONDS;
use super::service::Hosts;
use crate::error::{Error, Result};
use crate::store::Tx;

impl Hosts {
    /// Keeps these agents' heartbeats, verified and received at `now`; what is older than the one that is kept is
    /// dropped. "Older" goes by the start's number, never by a clock.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn take_heartbeats(
        &self,
        tx: &mut Tx,
        beats: &[(AgentId, Heartbeat)],
        now: Micros,
    ) -> Result<()> {
        let agents: Vec<AgentId> = beats.iter().map(|(id, _)| id.clone()).collect();
        let kept = beat_store::beat_numbers(tx, &agents).await?;
        let older = |id: &AgentId, beat: &Heartbeat| {
            kept.get(id).is_some_and(|kept| kept.start == beat.start_id && kept.n >= beat.n)
        };
        let mut news: Vec<&(AgentId, Heartbeat)> =
            beats.iter().filter(|(id, beat)| !older(id, beat)).collect();
        news.sort_by(|a, b| a.0.cmp(&b.0));
        let (mut rows, mut changed) = (Vec::new(), Vec::new());
        for one in news {
            let (id, beat) = one;
            let deploys = deployments::summary(&deployments::standings(beat))?;
            if kept.get(id).map_or("", |kept| kept.deploys.as_str()) != deploys {
                changed.push(one);
            }
            rows.push(values(id, beat, &deploys, now)?);
        }
        beat_store::put_heartbeats(tx, rows).await?;
        Ok(deployments::put(tx, &changed).await?)
    }

    /// Hosts that are there and hold an older keyring than this, with the version that each holds.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn behind_on_keyring(&self, version: u64, now: Micros) -> Result<Vec<(AgentId, u64)>> {
        let since = now.plus_seconds(-ONLINE_SECONDS);
        Ok(beat_store::behind_on_keyring(&self.store, version, since).await?)
    }

    /// A few hosts that hold a newer keyring than this, by name, with the version that each holds.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn ahead_on_keyring(&self, version: u64) -> Result<Vec<(String, u64)>> {
        Ok(beat_store::ahead_on_keyring(&self.store, version).await?)
    }

    /// How many hosts hold which version of the keyring, by version.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count_keyrings(&self) -> Result<Vec<(u64, u64)>> {
        Ok(beat_store::count_keyrings(&self.store).await?)
    }
}

fn values(id: &AgentId, beat: &Heartbeat, deploys: &str, now: Micros) -> Result<BeatValues> {
    let text = |e: serde_json::Error| Error::Internal(e.to_string());
    let busy = beat.busy.map(serde_json::to_value).transpose().map_err(text)?;
    let isolation = serde_json::to_value(beat.isolation).map_err(text)?;
    let [one, five, fifteen] = beat.load.map(finite);
    Ok([
        id.into(),
        (&beat.start_id).into(),
        beat.n.into(),
        now.into(),
        // An agent's clock is whole seconds: half a second is the middle of what it may mean.
        ((beat.iat.saturating_mul(1_000).saturating_add(500)).saturating_sub(now.0 / 1_000)).into(),
        (&beat.log_id).into(),
        beat.head.into(),
        beat.chain.into(),
        short(&beat.version, 64).into(),
        features(&beat.features).map_err(text)?.into(),
        beat.keyring.into(),
        beat.stopping.into(),
        busy.as_ref().and_then(serde_json::Value::as_str).into(),
        beat.narrowed.into(),
        isolation.as_str().unwrap_or_default().into(),
        beat.waiting.into(),
        beat.running.into(),
        percent(beat.cpu_usage).into(),
        percent(beat.memory_usage).into(),
        percent(beat.disk_usage).into(),
        format!("{one:.2} {five:.2} {fifteen:.2}").into(),
        beat.uptime.into(),
        short(&beat.boot_id, 64).into(),
        refused(&beat.refused).map_err(text)?.into(),
        deploys.into(),
    ])
}

/// The features that this controller may ask for; an agent could name any number of others.
fn features(all: &[String]) -> serde_json::Result<String> {
    let known: Vec<&str> = FEATURES.iter().copied().filter(|f| all.iter().any(|a| a == f)).collect();
    serde_json::to_string(&known)
}

/// Counts by reasons that exist; an agent could name any number of others.
fn refused(all: &BTreeMap<String, u64>) -> serde_json::Result<String> {
    let known: BTreeMap<&str, u64> =
        Refusal::ALL.into_iter().filter_map(|r| Some((r.label(), *all.get(r.label())?))).collect();
    serde_json::to_string(&known)
}

fn finite(n: f64) -> f64 {
    if n.is_finite() { n.clamp(0.0, 1e9) } else { 0.0 }
}

/// 0 to 100, one decimal.
fn percent(n: f64) -> f64 {
    (finite(n).min(100.0) * 10.0).round() / 10.0
}

/// An agent's text in a column of `max` characters.
fn short(text: &str, max: usize) -> String {
    text.chars().take(max).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_have_one_decimal_and_stay_in_range() {
        assert_eq!(percent(15.54), 15.5);
        assert_eq!(percent(250.0), 100.0);
        assert_eq!(percent(-3.0), 0.0);
        assert_eq!(percent(f64::NAN), 0.0);
    }
}
