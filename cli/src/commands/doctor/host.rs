//! What the controller knows of the host, and what its agent last said.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};
use signet_common::limits::CLOCK_SKEW_SECONDS_MAX;

use super::{Finding, fail, ok, warn};
use crate::client::{ClientError, parsed};
use crate::commands::agents::Agent;
use crate::context::Context;
use crate::limits::CLOCK_WORTH_A_WORD_MS;

/// Keys that claim the name and are not accepted.
pub(super) fn keys(context: &Context, host: &str) -> Result<Vec<Finding>, ClientError> {
    let agents: Vec<Agent> =
        context.all("/api/agents?standing=pending")?.iter().map(parsed).collect::<Result<_, _>>()?;
    let claims = agents.iter().filter(|a| a.hostname == host).map(|agent| {
        let hint = format!(
            "compare with `signet-agent show-key | openssl rsa -pubin -outform der | sha256sum` there, then: signet \
             agents accept {}",
            agent.agent_id
        );
        warn("key", format!("a key claims this name and waits: {}", agent.fingerprint), hint)
    });
    Ok(claims.collect())
}

/// What the controller knows of a host.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Host {
    pub(super) hostname: String,
    #[serde(default)]
    pub(super) group: String,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    status: String,
    last_heartbeat: Option<String>,
    agent_id: Option<String>,
    hold: Option<String>,
    hold_reason: Option<String>,
    cursor: Option<u64>,
    #[serde(default)]
    newest_keyring: Option<u64>,
    #[serde(default)]
    queue: Option<Queue>,
    #[serde(default)]
    broker_user: Option<String>,
    #[serde(default)]
    gaps: Option<Gaps>,
    agent: Option<Heartbeat>,
}

/// What its journal lost.
#[derive(Debug, Clone, Default, Deserialize)]
struct Gaps {
    events: u64,
    last_at: String,
}

/// Its queue at the broker.
#[derive(Debug, Clone, Default, Deserialize)]
struct Queue {
    state: String,
    waiting: u64,
}

/// What its newest heartbeat says.
#[derive(Debug, Clone, Default, Deserialize)]
struct Heartbeat {
    version: String,
    keyring: u64,
    clock_offset_ms: i64,
    head: u64,
    stopping: bool,
    busy: Option<String>,
    narrowed: bool,
    isolation: String,
    waiting: u32,
    running: u32,
    disk_usage: f64,
    #[serde(default)]
    refused: Map<String, Value>,
}

pub(super) fn examine(host: &Host) -> Vec<Finding> {
    let Some(id) = &host.agent_id else {
        let hint = "start signet-agent there with --controller and --join-token, or give it a key with PUT \
                    /api/client-keys";
        return vec![fail("agent", format!("{} has no agent", host.hostname), hint)];
    };
    let mut findings = vec![ok("agent", id.clone())];
    findings.push(presence(host));
    findings.extend(hold(host));
    findings.extend(host.gaps.as_ref().map(|gaps| {
        let found = format!("{} events were lost, last told at {}", gaps.events, gaps.last_at);
        warn("gaps", found, "it was away for more than its journal keeps; see which of its tasks are lost")
    }));
    findings.extend(host.queue.as_ref().and_then(queue));
    findings.extend(host.broker_user.as_deref().and_then(broker_user));
    // What an offline host said once says nothing about now.
    let Some(agent) = host.agent.as_ref().filter(|_| host.status == "online") else { return findings };
    findings.push(clock(agent.clock_offset_ms));
    findings.push(match &agent.busy {
        None => ok("work", format!("{} running, {} waiting", agent.running, agent.waiting)),
        Some(why) => busy(why, agent),
    });
    if host.newest_keyring.is_some_and(|newest| agent.keyring < newest) {
        let hint = "its next hello brings it the newest, within the hour; restart signet-agent there to have it at once";
        findings.push(fail("keyring", format!("it holds version {}", agent.keyring), hint));
    }
    if agent.narrowed {
        let hint = "what its policy.toml does not allow is rejected; see signet results of such a task";
        findings.push(warn("policy", "a policy file narrows what runs there", hint));
    }
    findings.extend(refused(agent));
    if agent.head > host.cursor.unwrap_or_default() {
        let behind = agent.head - host.cursor.unwrap_or_default();
        findings.push(warn(
            "reports",
            format!("{behind} events are not here yet"),
            "they come by themselves",
        ));
    }
    findings.push(ok(
        "version",
        format!("signet-agent {}, commands kept together by {}", agent.version, agent.isolation),
    ));
    findings
}

fn presence(host: &Host) -> Finding {
    let last = host.last_heartbeat.as_deref();
    match (host.status.as_str(), last, &host.agent) {
        ("online", last, _) => ok("heartbeat", last.unwrap_or_default()),
        (_, None, _) => {
            let hint = "does signet-agent run there, and does it reach the broker? See its log";
            fail("heartbeat", "there never was one", hint)
        }
        (_, Some(last), Some(agent)) if agent.stopping => {
            fail("heartbeat", format!("it said at {last} that it stops"), "start signet-agent there")
        }
        (_, Some(last), _) => {
            let hint = "is the host up, does signet-agent run there (systemctl status signet-agent), does it reach the \
                        broker?";
            fail("heartbeat", format!("none since {last}"), hint)
        }
    }
}

fn hold(host: &Host) -> Option<Finding> {
    let why = host.hold_reason.as_deref().unwrap_or_default();
    match host.hold.as_deref()? {
        "set_aside" => {
            let hint = format!(
                "its journal was rolled back, or it is a clone (then there: signet-agent reset --new-key). When you \
                 know which: signet agents accept {}",
                host.hostname
            );
            Some(fail("journal", format!("set aside: {why}"), hint))
        }
        "catching_up" => Some(warn(
            "journal",
            "its past is being taken in; nothing new is sent meanwhile",
            "it passes by itself",
        )),
        "accepted" => Some(warn("journal", why, "it passes by itself while the agent is online")),
        _ => None,
    }
}

fn queue(queue: &Queue) -> Option<Finding> {
    match (queue.state.as_str(), queue.waiting) {
        ("missing", _) => {
            let hint = "the next message to it makes one; if it stays away, look at the controller's log and its rights at \
                        the broker";
            Some(fail("queue", "the broker has no queue for it", hint))
        }
        ("there", 0) => Some(ok("queue", "it is there, and empty")),
        ("there", waiting) => Some(warn(
            "queue",
            format!("{waiting} messages wait in it"),
            "its agent does not take them: does it reach the broker? See its log",
        )),
        // The broker did not say; the line about the bus tells why.
        _ => None,
    }
}

fn broker_user(whose: &str) -> Option<Finding> {
    match whose {
        "own" => Some(ok("broker", "its own, which reads its queue alone")),
        "shared" => {
            let found = "hosts share one: any of them can read, fill or empty the queues of the others. It can forge no \
                         message, but it sees commands and can withhold them";
            let hint = "set SIGNET_AMQP_MANAGEMENT_URL, so that each host has a user of its own; see \"The broker\" in \
                        docs/operations.md";
            Some(warn("broker", found, hint))
        }
        _ => None,
    }
}

fn clock(offset_ms: i64) -> Finding {
    let seconds = offset_ms as f64 / 1_000.0;
    let way = if offset_ms < 0 { "behind" } else { "ahead" };
    let found = format!("{:.1} s {way}", seconds.abs());
    if offset_ms.abs() > CLOCK_SKEW_SECONDS_MAX * 1_000 {
        let hint = format!(
            "more than {CLOCK_SKEW_SECONDS_MAX} s: nothing is sent there until its clock is right (chrony, ntp)"
        );
        fail("clock", found, hint)
    } else if offset_ms.abs() > CLOCK_WORTH_A_WORD_MS {
        warn("clock", found, "set up chrony or ntp there")
    } else {
        ok("clock", found)
    }
}

fn busy(why: &str, agent: &Heartbeat) -> Finding {
    let hint = match why {
        "disk_full" => format!("make room on the disk of its data directory ({:.0}% used)", agent.disk_usage),
        "journal_full" => "its reports don't get through; see the bus and the controller's log".into(),
        "queue_full" => format!("{} commands wait for a free slot; see `slots` in agent.toml", agent.waiting),
        "stopping" => "it stops; start signet-agent there".into(),
        "starting" => "it waits for the answer to its hello; see its log when that takes long".into(),
        _ => "see its log".into(),
    };
    fail("work", format!("it takes none: {}", why.replace('_', " ")), hint)
}

fn refused(agent: &Heartbeat) -> Option<Finding> {
    let counts = agent.refused.iter().filter(|(reason, n)| *reason != "duplicate" && n.as_u64() > Some(0));
    let counts: Vec<String> = counts.map(|(reason, n)| format!("{n} {}", reason.replace('_', " "))).collect();
    let hint = "messages that it did not believe since its start: somebody else writes to its queue, or it trusts \
                another controller (signet-agent trust)";
    (!counts.is_empty()).then(|| warn("refused", counts.join(", "), hint))
}

#[cfg(test)]
mod tests {
    use super::super::Grade;
    use super::*;

    fn well() -> Host {
        Host {
            hostname: "web1".into(),
            status: "online".into(),
            last_heartbeat: Some("2026-01-01T00:00:00Z".into()),
            agent_id: Some("a".repeat(40)),
            hold: Some("none".into()),
            newest_keyring: Some(1),
            agent: Some(Heartbeat { keyring: 1, isolation: "cgroup".into(), ..Heartbeat::default() }),
            ..Host::default()
        }
    }

    fn agent(change: impl FnOnce(&mut Heartbeat)) -> Host {
        let mut host = well();
        change(host.agent.as_mut().unwrap());
        host
    }

    fn trouble(host: &Host) -> Vec<(&'static str, Grade)> {
        examine(host).iter().filter(|f| f.grade != Grade::Ok).map(|f| (f.check, f.grade)).collect()
    }

    #[test]
    fn a_healthy_host_has_no_trouble() {
        assert_eq!(trouble(&well()), []);
    }

    #[test]
    fn each_trouble_is_named() {
        let cases = [
            (Host { agent_id: None, ..well() }, "agent", Grade::Fail),
            (Host { status: "offline".into(), ..well() }, "heartbeat", Grade::Fail),
            (
                Host { status: "offline".into(), last_heartbeat: None, agent: None, ..well() },
                "heartbeat",
                Grade::Fail,
            ),
            (
                Host { queue: Some(Queue { state: "missing".into(), waiting: 0 }), ..well() },
                "queue",
                Grade::Fail,
            ),
            (
                Host { queue: Some(Queue { state: "there".into(), waiting: 3 }), ..well() },
                "queue",
                Grade::Warn,
            ),
            (Host { broker_user: Some("shared".into()), ..well() }, "broker", Grade::Warn),
            (Host { hold: Some("set_aside".into()), ..well() }, "journal", Grade::Fail),
            (Host { hold: Some("catching_up".into()), ..well() }, "journal", Grade::Warn),
            (agent(|a| a.clock_offset_ms = -300_000), "clock", Grade::Fail),
            (agent(|a| a.clock_offset_ms = 3_000), "clock", Grade::Warn),
            (agent(|a| a.busy = Some("disk_full".into())), "work", Grade::Fail),
            (agent(|a| a.keyring = 0), "keyring", Grade::Fail),
            (agent(|a| a.narrowed = true), "policy", Grade::Warn),
            (agent(|a| a.head = 3), "reports", Grade::Warn),
            (
                agent(|a| {
                    a.refused.insert("signature".into(), 2.into());
                }),
                "refused",
                Grade::Warn,
            ),
        ];
        for (host, check, grade) in cases {
            assert_eq!(trouble(&host), [(check, grade)]);
        }
        let duplicates = agent(|a| {
            a.refused.insert("duplicate".into(), 2.into());
        });
        assert_eq!(trouble(&Host { broker_user: Some("own".into()), ..well() }), []);
        assert_eq!(trouble(&duplicates), [], "redelivery is normal");
    }

    #[test]
    fn old_heartbeats_say_nothing_about_now() {
        let mut host = agent(|a| (a.clock_offset_ms, a.busy) = (-300_000, Some("disk_full".into())));
        host.status = "offline".into();
        let checks: Vec<&str> = examine(&host).iter().map(|f| f.check).collect();
        assert_eq!(checks, ["agent", "heartbeat"]);
    }
}
