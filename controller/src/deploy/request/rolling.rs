//! How a deployment goes from host to host: `batch`, `max_failures`, `canary`, `pause` and `order`.

use serde_json::{Map, Value};

use super::super::model::RollingOptions;
use super::super::model::{Canary, RunMode, Turn};
use super::{Asked, Problems, text, whole};
use crate::dispatch::BatchSize;
use crate::limits::{JOB_PAUSE_SECONDS_MAX, JOB_TARGETS_MAX};

/// Reads the options, and refuses what makes no sense together.
pub(super) fn rolling(
    object: &Map<String, Value>,
    mode: Option<RunMode>,
    targets: &[(usize, Asked)],
    problems: &mut Problems,
) -> RollingOptions {
    let order = text(object, "order").and_then(|t| {
        t.map(|t| Turn::parse(t).ok_or_else(|| "must be given, name, reverse or random".to_owned()))
            .transpose()
    });
    let options = RollingOptions {
        batch: problems.take("batch".into(), batch(object)),
        max_failures: problems.take("max_failures".into(), whole(object, "max_failures", 0, u32::MAX)),
        canary: problems.take("canary".into(), canary(object)),
        pause: problems.take("pause".into(), whole(object, "pause", 0, JOB_PAUSE_SECONDS_MAX)),
        order: problems.take("order".into(), order),
    };
    let in_steps = options.batch.is_some() || options.canary.is_some() || mode == Some(RunMode::Serial);
    if options.pause.is_some_and(|pause| pause > 0) && !in_steps {
        problems.add("pause", "is between batches: give batch, canary or run_mode serial too");
    }
    let over_ssh = targets.iter().filter(|(_, target)| matches!(target, Asked::Ssh(_))).count();
    if over_ssh > 0 && over_ssh < targets.len() {
        let why = "can't be given for agents and SSH in one job: each engine would count for itself";
        options.given().into_iter().for_each(|field| problems.add(field, why));
    }
    options
}

/// Hosts at a time: a number, or a share such as `"20%"`.
fn batch(object: &Map<String, Value>) -> Result<Option<String>, String> {
    let text = match object.get("batch") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::String(text)) => text.clone(),
        Some(_) => String::new(),
    };
    match batch_size(&text) {
        Some(_) => Ok(Some(text)),
        None => Err("must be a number of hosts from 1, or a share from \"1%\" to \"100%\"".into()),
    }
}

/// Reads what was stored as `batch`.
pub(in crate::deploy) fn batch_size(text: &str) -> Option<BatchSize> {
    if let Some(percent) = text.strip_suffix('%') {
        return percent.parse().ok().filter(|p| (1..=100).contains(p)).map(BatchSize::Percent);
    }
    text.parse().ok().filter(|n| *n > 0).map(BatchSize::Hosts)
}

/// So many hosts, or these. Whether they are targets is known once groups are expanded.
fn canary(object: &Map<String, Value>) -> Result<Option<Canary>, String> {
    let bad = || format!("must be a number of hosts from 1 to {JOB_TARGETS_MAX}, or a list of their names");
    match object.get("canary") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => {
            let hosts = number.as_u64().and_then(|n| u32::try_from(n).ok());
            let hosts = hosts.filter(|n| *n > 0 && *n as usize <= JOB_TARGETS_MAX).ok_or_else(bad)?;
            Ok(Some(Canary::Hosts(hosts)))
        }
        Some(Value::Array(names)) if (1..=JOB_TARGETS_MAX).contains(&names.len()) => {
            let name = |name: &Value| name.as_str().filter(|n| !n.is_empty()).map(str::to_owned);
            names
                .iter()
                .map(name)
                .collect::<Option<Vec<_>>>()
                .map(|all| Some(Canary::Named(all)))
                .ok_or_else(bad)
        }
        Some(_) => Err(bad()),
    }
}
