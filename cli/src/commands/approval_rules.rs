//! `signet approval-rules`: what needs the approval of how many others.

use std::io::{self, Write};

use clap::{Args, Subcommand, ValueEnum};
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::Method;

use super::run::seconds;
use crate::client::{parsed, part};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::table::{self, looking, plain};
use crate::term::Look;

/// List what needs the approval of others, add a rule, or remove one
#[derive(Debug, Args)]
pub(crate) struct ApprovalRules {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Add a rule; of those that match the one that asks for the most approvals counts
    Add {
        /// all (what is asked for with the target all) or @GROUP (what is for any host of it, however it is targeted)
        #[arg(value_parser = target)]
        target: Value,
        /// How many others must agree
        #[arg(long, default_value_t = 1, value_name = "NUMBER")]
        approvals: u32,
        /// For how long it waits for them, as 30m, 2h or 7d [default: 1h]
        #[arg(long, value_parser = seconds, value_name = "TIME")]
        expires_in: Option<u32>,
        /// Only this kind of work
        #[arg(long, value_enum, value_name = "KIND")]
        kind: Option<Kind>,
    },
    /// Remove a rule; what it holds already stays held
    Remove {
        /// The rule's id in the list
        id: String,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Command,
    Deploy,
}

#[derive(Debug, Deserialize)]
struct Rule {
    id: String,
    target: Value,
    approvals: u32,
    kinds: Vec<String>,
    expires_in: u32,
}

fn target(text: &str) -> Result<Value, String> {
    match text.strip_prefix('@') {
        Some(group) if !group.is_empty() => Ok(json!({ "group": group })),
        None if text == "all" => Ok(json!("all")),
        _ => Err("write it as all or @GROUP".into()),
    }
}

impl Rule {
    /// As it is written on the command line.
    fn target(&self) -> String {
        self.target["group"].as_str().map_or_else(|| "all".to_owned(), |group| format!("@{group}"))
    }
}

impl ApprovalRules {
    pub(crate) fn run(self, context: &Context) -> Result<Exit, Failure> {
        match self.action {
            None => list(context),
            Some(Action::Add { target, approvals, expires_in, kind }) => {
                let kinds = kind.and_then(|k| Some(vec![k.to_possible_value()?.get_name().to_owned()]));
                let body = json!({ "target": target, "approvals": approvals, "expires_in": expires_in, "kinds": kinds });
                let answer = context.client.send(&Method::POST, "/api/approval-rules", &[], Some(&body))?;
                if context.json() {
                    return context.print_json(&answer);
                }
                let rule: Rule = parsed(&answer)?;
                writeln!(io::stdout(), "{} needs {} approvals by others", rule.target(), rule.approvals)?;
                Ok(Exit::Success)
            }
            Some(Action::Remove { id }) => {
                let path = format!("/api/approval-rules/{}", part(&id));
                context.client.send(&Method::DELETE, &path, &[], None)?;
                if !context.json() {
                    writeln!(io::stdout(), "{id} is removed")?;
                }
                Ok(Exit::Success)
            }
        }
    }
}

fn list(context: &Context) -> Result<Exit, Failure> {
    let rules = context.all("/api/approval-rules")?;
    if context.json() {
        return context.print_json(&Value::Array(rules));
    }
    let mut rows = Vec::new();
    for rule in &rules {
        let rule: Rule = parsed(rule)?;
        rows.push(vec![
            plain(rule.id.as_str()),
            looking(Look::Bold, rule.target()),
            plain(rule.approvals.to_string()),
            plain(rule.kinds.join(", ")),
            plain(format!("{} s", rule.expires_in)),
        ]);
    }
    table::print(context.term, &["ID", "TARGET", "APPROVALS", "KINDS", "WAITS"], rows)?;
    Ok(Exit::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_written_as_elsewhere() {
        assert_eq!(target("@prod"), Ok(json!({ "group": "prod" })));
        assert_eq!(target("all"), Ok(json!("all")));
        for bad in ["", "@", "prod", "web1"] {
            assert!(target(bad).is_err(), "{bad}");
        }
    }
}
