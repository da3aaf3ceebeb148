//! What concerns every host: the controller, its bus, the pause switch, and what waits for approval.

use serde::Deserialize;

use super::{Finding, fail, info, ok};
use crate::api::Switch;
use crate::client::{ClientError, parsed};
use crate::context::Context;

/// The controller's database and bus, and the pause switch.
pub(super) fn controller(context: &Context, findings: &mut Vec<Finding>) -> Result<(), ClientError> {
    findings.push(match context.client.get("/api/health") {
        Ok(_) => ok("controller", "it answers, and its database is there"),
        Err(error @ ClientError::Refused { status: 503, .. }) => {
            fail("controller", error.to_string(), "commands wait until its database is back")
        }
        Err(error) => return Err(error),
    });
    if let Some(metrics) = context.client.text("/metrics")? {
        let is = |name: &str, value: f64| metric(&metrics, name) == Some(value);
        findings.push(if is("signet_bus_up", 1.0) {
            ok("bus", "it takes messages")
        } else if is("signet_bus_blocked", 1.0) {
            fail(
                "bus",
                "the broker takes no messages",
                "it has a memory or disk alarm: rabbitmqctl alarm_status",
            )
        } else {
            fail(
                "bus",
                "the broker is not reachable",
                "see SIGNET_AMQP_URL and the controller's log; commands wait",
            )
        });
    }
    let switch: Switch = parsed(&context.client.get("/api/dispatch")?)?;
    if let Some(why) = switch.held {
        findings.push(fail(
            "dispatch",
            format!("held for every host: {why}"),
            "start the controller with its keyring.sealed; see \"Restored databases\" in docs/operations.md",
        ));
    }
    if switch.paused {
        let why = switch.reason.unwrap_or_default();
        findings.push(fail("dispatch", format!("paused for every host: {why}"), "signet pause off"));
    }
    Ok(())
}

/// The value of a gauge without labels in Prometheus's text format.
fn metric(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// What waits for the word of others.
pub(super) fn approvals(context: &Context) -> Result<Option<Finding>, ClientError> {
    let waiting: Vec<Waiting> =
        context.all("/api/approvals?state=awaiting")?.iter().map(parsed).collect::<Result<_, _>>()?;
    Ok(held(&waiting))
}

/// A request for approval.
#[derive(Debug, Deserialize)]
struct Waiting {
    /// `command` or `deploy`
    kind: String,
    created_at: String,
}

/// The requests in a line; nothing when there is none.
fn held(waiting: &[Waiting]) -> Option<Finding> {
    let since = waiting.iter().map(|one| one.created_at.as_str()).min()?;
    let count = |kind: &str, name: &str| match waiting.iter().filter(|one| one.kind == kind).count() {
        0 => None,
        1 => Some(format!("1 {name}")),
        several => Some(format!("{several} {name}s")),
    };
    let counts: Vec<String> =
        [count("command", "command"), count("deploy", "deployment")].into_iter().flatten().collect();
    let found = format!("waiting for them: {}, the oldest since {since}", counts.join(" and "));
    Some(info("approvals", found, "see `signet approvals`; nothing of them runs until others agree"))
}

#[cfg(test)]
mod tests {
    use super::super::Grade;
    use super::*;

    #[test]
    fn gauges_are_read() {
        let text = "# TYPE signet_bus_up gauge\nsignet_bus_up 1\nsignet_bus_upper 7\n";
        assert_eq!(metric(text, "signet_bus_up"), Some(1.0));
        assert_eq!(metric(text, "signet_bus"), None);
    }

    #[test]
    fn what_waits_is_counted_and_is_no_fault() {
        let one = |kind: &str, day: u32| Waiting {
            kind: kind.into(),
            created_at: format!("2026-01-{day:02}T00:00:00Z"),
        };
        assert_eq!(held(&[]), None);
        let all = [one("command", 7), one("deploy", 3), one("command", 5)];
        let finding = held(&all).unwrap();
        assert_eq!(finding.grade, Grade::Info);
        assert!(
            finding.found.contains("2 commands and 1 deployment, the oldest since 2026-01-03T"),
            "{finding:?}"
        );
    }
}
