//! `signet deployments`: how deployed paths stand.

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use crate::client::{parsed, part};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::table::{self, looking, plain};
use crate::term::Look;

/// List deployed paths, and which of them are not what was deployed
#[derive(Debug, Args)]
pub(crate) struct Deployments {
    /// Only what is not what was deployed
    #[arg(long)]
    drifted: bool,
    /// Only this host's
    #[arg(long, value_name = "HOST")]
    hostname: Option<String>,
    /// Only this group's
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Only this path
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
}

/// A deployed path of a host.
#[derive(Debug, Deserialize)]
struct Deployment {
    hostname: String,
    path: String,
    deployed: String,
    commit: Option<String>,
    edited: bool,
    drifted: bool,
    job_id: Option<String>,
    seen_at: String,
}

/// Of a commit's name, what people read.
const SHORT: usize = 12;

impl Deployment {
    /// How it stands, in a word.
    fn word(&self) -> (Look, &'static str) {
        match (&self.commit, self.drifted, self.edited) {
            (None, ..) => (Look::Bad, "unreadable"),
            (Some(_), _, true) => (Look::Bad, "edited"),
            (Some(_), true, false) => (Look::Bad, "other commit"),
            (Some(_), false, false) => (Look::Good, "as deployed"),
        }
    }

    fn row(self) -> Vec<table::Cell> {
        let short = |commit: &str| commit.chars().take(SHORT).collect::<String>();
        let (look, word) = self.word();
        vec![
            looking(Look::Bold, self.hostname),
            plain(self.path),
            looking(look, word),
            plain(short(&self.deployed)),
            plain(self.commit.as_deref().map_or_else(|| "-".to_owned(), short)),
            plain(self.job_id.unwrap_or_else(|| "-".into())),
            plain(self.seen_at),
        ]
    }
}

impl Deployments {
    pub(crate) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let drifted = self.drifted.then(|| "true".to_owned());
        let filters =
            [("drifted", drifted), ("hostname", self.hostname), ("group", self.group), ("path", self.path)];
        let query: Vec<String> = filters
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", part(&value?))))
            .collect();
        let found = context.all(&format!("/api/deployments?{}", query.join("&")))?;
        if context.json() {
            return context.print_json(&Value::Array(found));
        }
        let mut rows = Vec::new();
        for one in &found {
            rows.push(parsed::<Deployment>(one)?.row());
        }
        table::print(context.term, &["HOST", "PATH", "STANDS", "DEPLOYED", "NOW", "JOB", "SEEN"], rows)?;
        Ok(Exit::Success)
    }
}
