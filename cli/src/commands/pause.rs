//! `signet pause`: the switch that holds dispatch.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use serde_json::json;
use ureq::http::Method;

use crate::api::Switch;
use crate::client::parsed;
use crate::context::Context;
use crate::exit::{Exit, Failure};

/// Show whether dispatch is paused, pause it, or let it go on
///
/// Paused, nothing new is sent to any host; what runs goes on, and can be cancelled.
#[derive(Debug, Args)]
pub(crate) struct Pause {
    #[command(subcommand)]
    switch: Option<To>,
}

#[derive(Debug, Subcommand)]
enum To {
    /// Pause dispatch
    On {
        /// Why; everybody sees it
        #[arg(value_name = "REASON")]
        reason: Vec<String>,
    },
    /// Let dispatch go on
    Off,
}

impl Pause {
    pub(crate) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let body = match self.switch {
            None => None,
            Some(To::Off) => Some(json!({ "paused": false })),
            Some(To::On { reason }) => {
                let reason = Some(reason.join(" ")).filter(|r| !r.is_empty());
                Some(json!({ "paused": true, "reason": reason }))
            }
        };
        let answer = match &body {
            None => context.client.get("/api/dispatch")?,
            Some(_) => context.client.send(&Method::PUT, "/api/dispatch", &[], body.as_ref())?,
        };
        if context.json() {
            return context.print_json(&answer);
        }
        let switch: Switch = parsed(&answer)?;
        if switch.paused {
            context.warn_of_pause(&switch.reason.unwrap_or_default());
        } else {
            writeln!(io::stdout(), "dispatch is not paused")?;
        }
        Ok(Exit::Success)
    }
}
