//! `signet agents`: the keys that agents came with, and an admin's word on them.

use std::io::{self, Write};

use clap::{Args, Subcommand, ValueEnum};
use serde::Deserialize;
use serde_json::Value;
use signet_common::AgentId;
use ureq::http::Method;

use crate::client::{parsed, part};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::table::{self, looking, plain};
use crate::term::{Look, state_look};

/// List agents' keys, accept a pending or set-aside one, or revoke one
#[derive(Debug, Args)]
pub(crate) struct Agents {
    #[command(subcommand)]
    action: Option<Action>,
    /// Only keys that stand so
    #[arg(long, value_enum, value_name = "STANDING")]
    standing: Option<Standing>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the keys that wait for a word, each beside the key that its host has now
    Pending,
    /// Accept a pending key after its fingerprint was compared, or a host that was set aside
    Accept {
        /// The agent's id, or the host's name when it has one key that can be meant
        agent: String,
    },
    /// Revoke a key: nothing it says counts any more
    Revoke {
        /// The agent's id, or the host's name when it has one key that can be meant
        agent: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Standing {
    Accepted,
    Pending,
    Replaced,
    Revoked,
}

/// A key in the list.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Agent {
    pub agent_id: String,
    pub hostname: String,
    pub fingerprint: String,
    pub standing: String,
    pub updated_at: String,
}

impl Agents {
    pub(crate) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let (name, verb, who) = match self.action {
            None => return list(context, self.standing),
            Some(Action::Pending) => return pending(context),
            Some(Action::Accept { agent }) => (agent, "accept", &["pending", "accepted"][..]),
            Some(Action::Revoke { agent }) => (agent, "revoke", &["accepted"][..]),
        };
        let agents: Vec<Agent> = context.all("/api/agents")?.iter().map(parsed).collect::<Result<_, _>>()?;
        let id = chosen(&agents, &name, who).map_err(Failure::Usage)?;
        let path = format!("/api/agents/{}/{verb}", part(&id));
        let answer = context.client.send(&Method::POST, &path, &[], None)?;
        if context.json() {
            return context.print_json(&answer);
        }
        let agent: Agent = parsed(&answer)?;
        writeln!(io::stdout(), "{}: {} is {}", agent.hostname, agent.fingerprint, agent.standing)?;
        let before = accepted_of(&agents, &agent.hostname).filter(|old| old.agent_id != id);
        if let Some(old) = before.filter(|_| agent.standing == "accepted") {
            writeln!(io::stdout(), "{}: {} is replaced", old.hostname, old.fingerprint)?;
        }
        Ok(Exit::Success)
    }
}

/// The key that counts for a host.
fn accepted_of<'a>(agents: &'a [Agent], host: &str) -> Option<&'a Agent> {
    agents.iter().find(|agent| agent.hostname == host && agent.standing == "accepted")
}

/// Both fingerprints one below the other, because they are there to be compared.
fn pending(context: &Context) -> Result<Exit, Failure> {
    let mut all = context.all("/api/agents")?;
    let agents: Vec<Agent> = all.iter().map(parsed).collect::<Result<_, _>>()?;
    let old = |agent: &Agent| accepted_of(&agents, &agent.hostname).map(|old| old.fingerprint.clone());
    if context.json() {
        for (value, agent) in all.iter_mut().zip(&agents) {
            value["accepted_fingerprint"] = old(agent).map_or(Value::Null, Value::from);
        }
        all.retain(|value| value["standing"] == "pending");
        return context.print_json(&Value::Array(all));
    }
    let mut out = io::stdout().lock();
    for agent in agents.iter().filter(|agent| agent.standing == "pending") {
        writeln!(
            out,
            "{}: another key since {}",
            context.term.paint(Look::Bold, &agent.hostname),
            agent.updated_at
        )?;
        writeln!(out, "  has now  {}", old(agent).as_deref().unwrap_or("no key"))?;
        writeln!(out, "  claims   {}", agent.fingerprint)?;
        writeln!(out, "  signet agents accept {}", agent.agent_id)?;
    }
    Ok(Exit::Success)
}

fn list(context: &Context, standing: Option<Standing>) -> Result<Exit, Failure> {
    let query = standing.and_then(|s| Some(format!("?standing={}", s.to_possible_value()?.get_name())));
    let agents = context.all(&format!("/api/agents{}", query.unwrap_or_default()))?;
    if context.json() {
        return context.print_json(&Value::Array(agents));
    }
    let mut rows = Vec::new();
    for agent in &agents {
        let agent: Agent = parsed(agent)?;
        rows.push(vec![
            looking(Look::Bold, agent.hostname),
            looking(state_look(&agent.standing), agent.standing),
            plain(agent.updated_at),
            // Never cut: it is there to be compared.
            plain(agent.fingerprint),
        ]);
    }
    table::print(context.term, &["HOST", "STANDING", "SINCE", "FINGERPRINT"], rows)?;
    Ok(Exit::Success)
}

/// The agent that a name means: an id as it is; a hostname when it has exactly one key that stands in the first of
/// `standings` in which it has any.
fn chosen(agents: &[Agent], name: &str, standings: &[&str]) -> Result<String, String> {
    if name.parse::<AgentId>().is_ok() {
        return Ok(name.to_owned());
    }
    let host = name.to_lowercase();
    for standing in standings {
        let keys: Vec<&Agent> =
            agents.iter().filter(|a| a.hostname == host && a.standing == *standing).collect();
        match keys.as_slice() {
            [] => {}
            [one] => return Ok(one.agent_id.clone()),
            several => {
                let ids: Vec<&str> = several.iter().map(|a| a.agent_id.as_str()).collect();
                return Err(format!("{host} has several {standing} keys; name one: {}", ids.join(", ")));
            }
        }
    }
    Err(format!("{host} has no key that is {}", standings.join(" or ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostname_means_the_one_key_that_can_be_meant() {
        let agent = |id: &str, host: &str, standing: &str| Agent {
            agent_id: id.into(),
            hostname: host.into(),
            fingerprint: String::new(),
            standing: standing.into(),
            updated_at: String::new(),
        };
        let agents = [
            agent("1", "a", "accepted"),
            agent("2", "a", "pending"),
            agent("3", "b", "accepted"),
            agent("4", "c", "pending"),
            agent("5", "c", "pending"),
            agent("6", "d", "revoked"),
        ];
        let accept = |name: &str| chosen(&agents, name, &["pending", "accepted"]);
        assert_eq!(accept("A").unwrap(), "2");
        assert_eq!(accept("b").unwrap(), "3");
        assert!(accept("c").unwrap_err().contains("4, 5"));
        assert!(accept("d").is_err());
        assert_eq!(chosen(&agents, "a", &["accepted"]).unwrap(), "1");
    }
}
