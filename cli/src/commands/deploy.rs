//! `signet deploy`: a git repository to hosts with agents, with the job's log as it grows.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};
use ureq::http::Method;

use super::given;
use super::job;
use super::run::seconds;
use super::target::Target;
use crate::client::ClientError;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::limits::{GIVEN_BYTES_MAX, HEALTH_ATTEMPTS, HEALTH_PAUSE_SECONDS, HEALTH_SECONDS};

/// Deploy a git repository to enrolled hosts and follow the job's log
///
/// The first Ctrl-C cancels the job, the second one leaves it alone. Exit codes: 0 every host stands on the commit, 1 some
/// host does not, 2 bad usage, 3 the controller is away or refuses, 4 the time of --wait has passed, 130 cancelled by
/// Ctrl-C. With --output json each line of the log is an object, and the last line is the job.
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
    #[command(flatten)]
    made: Made,
    #[command(flatten)]
    rolling: Rolling,
    #[command(flatten)]
    trust: Trust,
    /// Account that deploys on the hosts [default: the agents' own]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// How long the job may take, as 90s, 30m or 2h; pauses come on top [default: 1h]
    #[arg(long, value_parser = seconds, value_name = "TIME")]
    timeout: Option<u32>,
    /// Throw away what was changed by hand
    #[arg(long)]
    force: bool,
    /// Print the job's id and don't wait
    #[arg(long, conflicts_with = "wait")]
    no_wait: bool,
    /// Follow the log no longer than this, as 90s, 30m or 2h; the job goes on
    #[arg(long, value_parser = seconds, value_name = "TIME")]
    wait: Option<u32>,
}

/// How releases are made.
#[derive(Debug, Args)]
#[command(next_help_heading = "With --releases")]
struct Made {
    /// Releases that stay [default: 5]
    #[arg(long, requires = "releases", value_name = "NUMBER")]
    keep: Option<u32>,
    /// A path that lives outside the releases and is linked into each; may be given several times
    #[arg(long, requires = "releases", value_name = "PATH")]
    shared: Vec<String>,
    /// Shell text run in a new release before it is current; may be given several times
    #[arg(long, requires = "releases", value_name = "TEXT")]
    build: Vec<String>,
    /// Shell text run in a new release once it is current; may be given several times
    #[arg(long, requires = "releases", value_name = "TEXT")]
    activate: Vec<String>,
    /// Shell text that ends well when the new release works; else the one before is current again
    #[arg(long, requires = "releases", conflicts_with = "health_url", value_name = "TEXT")]
    health_command: Option<String>,
    /// Address that the host answers with 200 when the new release works
    #[arg(long, requires = "releases", value_name = "URL")]
    health_url: Option<String>,
}

impl Made {
    fn health(&self) -> Option<Value> {
        let probe = match (&self.health_command, &self.health_url) {
            (Some(text), _) => json!({ "command": text }),
            (None, Some(url)) => json!({ "http": { "url": url } }),
            (None, None) => return None,
        };
        Some(json!({ "probe": probe, "timeout": HEALTH_SECONDS, "attempts": HEALTH_ATTEMPTS,
            "pause": HEALTH_PAUSE_SECONDS }))
    }
}

/// What opens the repository, and what of it is believed.
#[derive(Debug, Args)]
#[command(next_help_heading = "The repository")]
struct Trust {
    /// Variable of the environment that holds a token for HTTPS; only git sees it on the hosts
    #[arg(long, value_name = "VARIABLE")]
    token_env: Option<String>,
    /// User that goes with the token [default: git]
    #[arg(long, requires = "token_env", value_name = "NAME")]
    token_user: Option<String>,
    /// File of allowed signers, as OpenSSH has it: one of them must have signed the commit or its tag
    #[arg(long, value_name = "FILE")]
    signers: Option<PathBuf>,
    /// Check out submodules as well
    #[arg(long)]
    submodules: bool,
    /// Run the filters that the hosts' git knows, such as Git LFS
    #[arg(long)]
    filters: bool,
}

impl Trust {
    fn credential(&self) -> Result<Option<Value>, Failure> {
        let Some(name) = &self.token_env else { return Ok(None) };
        let token = given::variable("--token-env", name)?;
        Ok(Some(json!({ "kind": "https_token", "token": token, "username": self.token_user })))
    }

    fn allowed_signers(&self) -> Result<Option<Value>, Failure> {
        let Some(path) = &self.signers else { return Ok(None) };
        Ok(Some(given::text("--signers", path, GIVEN_BYTES_MAX)?.into()))
    }
}

/// From host to host.
#[derive(Debug, Args)]
#[command(next_help_heading = "From host to host")]
struct Rolling {
    /// Hosts at a time: a number, or a share as 20%
    #[arg(long, value_name = "HOSTS", conflicts_with = "serial")]
    batch: Option<String>,
    /// One host after the other
    #[arg(long)]
    serial: bool,
    /// Hosts that go first: a number, or names with commas. Unless each of them succeeds, the rest is left out
    #[arg(long, value_parser = canary, value_name = "HOSTS")]
    canary: Option<Value>,
    /// Wait between batches, as 30s or 5m
    #[arg(long, value_parser = seconds, value_name = "TIME")]
    pause: Option<u32>,
    /// In what order hosts go [default: given]
    #[arg(long, value_enum, value_name = "ORDER")]
    order: Option<Order>,
    /// Leave out the rest when more hosts than this have failed
    #[arg(long, value_name = "NUMBER")]
    max_failures: Option<u32>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Order {
    /// As they are given, groups by name
    Given,
    /// By name
    Name,
    /// The other way round
    Reverse,
    /// Another one each time
    Random,
}

/// Which option each field of a request comes from.
const OPTIONS: [(&str, &str); 25] = [
    ("git_repo", THE_REPOSITORY),
    ("git_branch", "--branch"),
    ("dest_path", "--path"),
    ("targets", "--to"),
    ("strategy", "--releases"),
    ("keep", "--keep"),
    ("shared", "--shared"),
    ("build", "--build"),
    ("activate", "--activate"),
    ("health.probe.http", "--health-url"),
    ("health", "--health-command"),
    ("run_mode", "--serial"),
    ("batch", "--batch"),
    ("max_failures", "--max-failures"),
    ("canary", "--canary"),
    ("pause", "--pause"),
    ("order", "--order"),
    ("user", "--user"),
    ("timeout", "--timeout"),
    ("force", "--force"),
    ("credential.username", "--token-user"),
    ("credential", "--token-env"),
    ("allowed_signers", "--signers"),
    ("submodules", "--submodules"),
    ("filters", "--filters"),
];
const THE_REPOSITORY: &str = "the repository's address";

/// What helps with what is wrong, beyond why it is.
fn more(option: &str, why: &str) -> &'static str {
    if option.starts_with("--to ") && why.ends_with("is no enrolled host") {
        " (`signet servers` lists them; to deploy over SSH to a host without an agent, use POST /api/v1/jobs)"
    } else if option == THE_REPOSITORY && why.ends_with("is not allowed here") {
        " (SIGNET_GIT_PROTOCOLS on the controller allows more)"
    } else {
        ""
    }
}

fn canary(text: &str) -> Result<Value, String> {
    if let Ok(number) = text.parse::<u32>() {
        return Ok(number.into());
    }
    let names: Vec<&str> = text.split(',').map(str::trim).collect();
    if names.contains(&"") { Err("write it as 1 or web1,web2".into()) } else { Ok(names.into()) }
}

impl Deploy {
    fn body(&self) -> Result<Value, Failure> {
        let target = |target: &Target| match (target.kind, &target.text) {
            ("node", Some(host)) => Ok(json!({ "host": host })),
            ("group", Some(group)) => Ok(json!({ "group": group })),
            _ => Err(Failure::Usage("a deployment goes to HOST or @GROUP".into())),
        };
        let targets = self.targets.iter().map(target).collect::<Result<Vec<_>, _>>()?;
        let order = self.rolling.order.and_then(|order| order.to_possible_value());
        let list = |texts: &[String]| (!texts.is_empty()).then(|| Value::from(texts));
        let all = [
            ("git_repo", Some(self.repository.as_str().into())),
            ("git_branch", self.branch.as_deref().map(Value::from)),
            ("dest_path", Some(self.path.as_str().into())),
            ("targets", Some(targets.into())),
            ("strategy", self.releases.then(|| "releases".into())),
            ("keep", self.made.keep.map(Value::from)),
            ("shared", list(&self.made.shared)),
            ("build", list(&self.made.build)),
            ("activate", list(&self.made.activate)),
            ("health", self.made.health()),
            ("run_mode", self.rolling.serial.then(|| "serial".into())),
            ("batch", self.rolling.batch.as_deref().map(Value::from)),
            ("max_failures", self.rolling.max_failures.map(Value::from)),
            ("canary", self.rolling.canary.clone()),
            ("pause", self.rolling.pause.map(Value::from)),
            ("order", order.map(|order| order.get_name().into())),
            ("user", self.user.as_deref().map(Value::from)),
            ("timeout", self.timeout.map(Value::from)),
            ("force", self.force.then(|| true.into())),
            ("credential", self.trust.credential()?),
            ("allowed_signers", self.trust.allowed_signers()?),
            ("submodules", self.trust.submodules.then(|| true.into())),
            ("filters", self.trust.filters.then(|| true.into())),
        ];
        let given = all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Ok(Value::Object(given.collect::<Map<_, _>>()))
    }

    /// What the API says of a field, said of the option that it came from.
    fn named(&self, error: ClientError) -> ClientError {
        let several = |field: &str, option: &str, values: &[String]| -> Vec<(String, String)> {
            let one = |(at, value)| (format!("{field}[{at}]"), format!("{option} {value}"));
            values.iter().enumerate().map(one).collect()
        };
        let targets: Vec<String> = self.targets.iter().map(Target::to_string).collect();
        let canary = self.rolling.canary.as_ref().and_then(Value::as_array).into_iter().flatten();
        let canary: Vec<String> = canary.filter_map(Value::as_str).map(str::to_owned).collect();
        let mut options = several("targets", "--to", &targets);
        options.extend(several("canary", "--canary", &canary));
        options.extend(several("shared", "--shared", &self.made.shared));
        options.extend(OPTIONS.map(|(field, option)| (field.to_owned(), option.to_owned())));
        let mut error = given::options(error, &options);
        if let ClientError::Refused { fields, .. } = &mut error {
            for (field, why) in fields {
                let more = more(field, why);
                *why = why.strip_prefix("required: ").unwrap_or(why).to_owned();
                if let Some(short) = field.strip_prefix("--to ").and_then(|to| why.strip_prefix(to)) {
                    *why = short.trim_start().to_owned();
                }
                why.push_str(more);
            }
        }
        error
    }

    pub(crate) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let body = self.body()?;
        let interrupt = Interrupt::take_over().map_err(io::Error::from)?;
        let made = context.client.send_once(&Method::POST, "/api/v1/jobs", &body);
        let made = made.map_err(|error| self.named(error))?;
        let wait = self.wait.map(|seconds| Duration::from_secs(seconds.into()));
        job::begun(context, &made, self.no_wait, &interrupt, wait)
    }
}
