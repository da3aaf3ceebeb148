//! `signet deploy`: a git repository to hosts with agents, with the job's log as it grows.

use std::io::{self, Write};
use std::thread;

use clap::Args;
use serde_json::{Value, json};
use ureq::http::Method;

use super::target::Target;
use crate::client::part;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::limits::TICK;

/// Deploy a git repository to enrolled hosts and follow the job's log
///
/// The first Ctrl-C cancels the job, the second one leaves it alone.
#[derive(Debug, Args)]
pub(crate) struct Deploy {
    /// The repository, as https://… or git@…
    repository: String,
    /// HOST or @GROUP; may be given several times
    #[arg(long = "to", required = true, value_name = "TARGET")]
    targets: Vec<Target>,
    /// Where it goes on the hosts
    #[arg(long, value_name = "DIR")]
    path: String,
    /// Branch, tag or commit [default: the repository's own]
    #[arg(long, value_name = "NAME")]
    branch: Option<String>,
    /// Make releases and switch to the new one at once, instead of changing the directory itself
    #[arg(long)]
    releases: bool,
    /// Hosts at a time: a number, or a share as 20%
    #[arg(long, value_name = "HOSTS")]
    batch: Option<String>,
    /// Release nothing more when more hosts than this have failed
    #[arg(long, value_name = "NUMBER")]
    max_failures: Option<u32>,
    /// Throw away what was changed by hand
    #[arg(long)]
    force: bool,
    /// Print the job's id and don't wait
    #[arg(long)]
    no_wait: bool,
}

impl Deploy {
    fn body(&self) -> Result<Value, Failure> {
        let target = |target: &Target| match (target.kind, &target.text) {
            ("node", Some(host)) => Ok(json!({ "host": host })),
            ("group", Some(group)) => Ok(json!({ "group": group })),
            _ => Err(Failure::Usage("a deployment goes to HOST or @GROUP".into())),
        };
        let targets = self.targets.iter().map(target).collect::<Result<Vec<_>, _>>()?;
        Ok(json!({
            "git_repo": self.repository,
            "git_branch": self.branch,
            "dest_path": self.path,
            "targets": targets,
            "strategy": if self.releases { "releases" } else { "in_place" },
            "batch": self.batch,
            "max_failures": self.max_failures,
            "force": self.force,
        }))
    }

    pub(crate) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let body = self.body()?;
        let interrupt = Interrupt::take_over().map_err(io::Error::from)?;
        let made = context.client.send_once(&Method::POST, "/api/v1/jobs", &body)?;
        let id = made["data"]["job_id"].as_str().unwrap_or_default().to_owned();
        if self.no_wait {
            if context.json() {
                return context.print_json(&made);
            }
            writeln!(io::stdout(), "{id}")?;
            return Ok(Exit::Success);
        }
        follow(context, &id, &interrupt)
    }
}

/// Shows the log as it grows, until the job is over.
fn follow(context: &Context, id: &str, interrupt: &Interrupt) -> Result<Exit, Failure> {
    let path = format!("/api/v1/jobs/{}", part(id));
    let (mut from, mut cancelled) = (0_i64, false);
    loop {
        let page = context.client.get(&format!("{path}/logs?format=json&from_id={from}"))?;
        let lines = page["data"]["lines"].as_array().map(Vec::as_slice).unwrap_or_default();
        for line in lines {
            if context.json() {
                writeln!(io::stdout(), "{line}")?;
            } else {
                writeln!(io::stdout(), "{}", line["line"].as_str().unwrap_or_default())?;
            }
        }
        from = page["data"]["next_from_id"].as_i64().unwrap_or(from);
        if page["data"]["finished"] == true {
            break;
        }
        if interrupt.pressed() && !cancelled {
            context.client.send(&Method::POST, &format!("{path}/cancel"), &[], None)?;
            cancelled = true;
        }
        if lines.is_empty() {
            thread::sleep(TICK);
        }
    }
    let job = context.client.get(&path)?;
    let status = job["data"]["status"].as_str().unwrap_or_default();
    if !context.json() {
        writeln!(io::stderr(), "{id}: {status}")?;
    }
    Ok(match status {
        "SUCCESS" => Exit::Success,
        "CANCELLED" if cancelled => Exit::Interrupted,
        _ => Exit::SomeFailed,
    })
}
