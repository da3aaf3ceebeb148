//! `signet servers`: who is there.

use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::api::Server;
use crate::client::{parsed, part};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::table::{self, looking, plain};
use crate::term::{Look, state_look};

/// List the servers
#[derive(Debug, Args)]
pub(crate) struct Servers {
    /// Only this group's
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Only those that are online or offline
    #[arg(long, value_enum, value_name = "STATUS")]
    status: Option<Status>,
    /// Only those with this label
    #[arg(long, value_name = "NAME=VALUE")]
    label: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Status {
    Online,
    Offline,
}

impl Servers {
    pub(crate) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let status = self.status.map(|s| match s {
            Status::Online => "online".to_owned(),
            Status::Offline => "offline".to_owned(),
        });
        let filters = [("group", self.group), ("status", status), ("label", self.label)];
        let query: Vec<String> = filters
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", part(&value?))))
            .collect();
        let servers = context.all(&format!("/api/servers?{}", query.join("&")))?;
        context.warn_when_paused();
        if context.json() {
            return context.print_json(&Value::Array(servers));
        }
        let percent = |n: Option<f64>| n.map_or_else(|| "-".to_owned(), |n| format!("{n:.1}%"));
        let mut rows = Vec::new();
        for server in &servers {
            let server: Server = parsed(server)?;
            let labels: Vec<String> =
                server.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let notes = [("set aside", server.set_aside), ("narrowed", server.narrowed)];
            let notes: Vec<&str> = notes.into_iter().filter(|(_, is)| *is).map(|(note, _)| note).collect();
            rows.push(vec![
                looking(Look::Bold, server.hostname),
                looking(state_look(&server.status), server.status),
                plain(server.group),
                plain(server.ip),
                plain(server.last_heartbeat.unwrap_or_else(|| "never".into())),
                plain(percent(server.cpu_usage)),
                plain(percent(server.memory_usage)),
                plain(labels.join(" ")),
                plain(notes.join(", ")),
            ]);
        }
        table::print(
            context.term,
            &["HOST", "STATUS", "GROUP", "IP", "HEARTBEAT", "CPU", "MEMORY", "LABELS", "NOTES"],
            rows,
        )?;
        Ok(Exit::Success)
    }
}
