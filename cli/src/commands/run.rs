//! `signet run`: a command on many hosts, and its results.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use signet_common::Jti;
use ureq::http::Method;

use super::given;
use super::target::Target;
use super::watch::watch;
use crate::api::Task;
use crate::client::parsed;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::limits::STDIN_BYTES_MAX;
use crate::term::Look;
use crate::text::shell_join;

/// Run a command on hosts and show every result
///
/// One argument after -- is a text for the shell; several are joined so that the shell splits them the same way again;
/// with --argv they are run without a shell. On one host the output goes straight through. On several, identical
/// outputs are shown once. The first Ctrl-C cancels the task, the second one leaves it alone.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// HOST, @GROUP, label:NAME=VALUE or all
    target: Target,
    /// The command, after --
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
    /// Run the arguments as they are, without a shell
    #[arg(long)]
    argv: bool,
    /// End it after this long, as 30, 90s, 5m or 2h [default: 30s]
    #[arg(long, value_parser = seconds, value_name = "TIME")]
    timeout: Option<u32>,
    /// Account to run as [default: the agent's own]
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Set a variable; may be given several times
    #[arg(long = "env", value_parser = variable, value_name = "NAME=VALUE")]
    variables: Vec<(String, String)>,
    /// Working directory [default: the user's home]
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    /// Standard input of the command: this file, or our own standard input
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "-", value_name = "FILE")]
    stdin: Option<PathBuf>,
    /// How long it may wait to be started, as 600, 10m or 24h [default: 10m, 24h with --batch]
    #[arg(long, value_parser = seconds, value_name = "TIME")]
    expires_in: Option<u32>,
    /// Hosts at a time: a number, or a share as 20%
    #[arg(long, value_parser = batch, value_name = "HOSTS")]
    batch: Option<Value>,
    /// Start nothing more when more hosts than this have failed
    #[arg(long, value_name = "NUMBER")]
    max_failures: Option<u32>,
    /// Bytes kept of each output stream [default: 1 MiB]
    #[arg(long, value_name = "BYTES")]
    output_limit: Option<u64>,
    /// Run it in a systemd unit of its own and don't follow it
    #[arg(long)]
    detached: bool,
    /// Asking again with the same key gives the same task [default: a new key]
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Print the task's id and don't wait
    #[arg(long)]
    no_wait: bool,
}

impl Run {
    /// Asks for the command and follows it.
    pub(crate) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let body = self.body()?;
        // Before any thread is started, so that Ctrl-C never comes between the task and its cancel.
        let interrupt = Interrupt::take_over().map_err(io::Error::from)?;
        context.warn_when_paused();
        // With a key of its own a request whose connection broke can be sent again without running twice.
        let key = self.idempotency_key.unwrap_or_else(|| Jti::generate().to_string());
        let headers = [("idempotency-key", key.as_str())];
        let answer = context.client.send(&Method::POST, "/api/commands", &headers, Some(&body))?;
        let task: Task = parsed(&answer)?;
        if let Some(approval) = task.approval.as_ref().filter(|approval| approval.state == "awaiting") {
            let (needed, until) = (approval.needed, &approval.not_after);
            let text = format!("waits for {needed} approvals until {until}: signet approve {}", task.task_id);
            context.term.say(Look::Warn, &text);
        }
        if self.no_wait {
            if context.json() {
                return context.print_json(&answer);
            }
            writeln!(io::stdout(), "{}", task.task_id)?;
            return Ok(Exit::Success);
        }
        watch(context, &task.task_id, &interrupt)
    }

    fn body(&self) -> Result<Value, Failure> {
        let mut body = json!({ "target_type": self.target.kind, "target": self.target.text });
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                body[name] = value;
            }
        };
        match self.command.as_slice() {
            _ if self.argv => set("argv", Some(json!(self.command))),
            [text] => set("command", Some(json!(text))),
            several => set("command", Some(json!(shell_join(several)))),
        }
        let variables: serde_json::Map<String, Value> =
            self.variables.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        set("timeout", self.timeout.map(Value::from));
        set("user", self.user.clone().map(Value::from));
        set("env", (!variables.is_empty()).then_some(Value::Object(variables)));
        set("cwd", self.cwd.clone().map(Value::from));
        let stdin = self.stdin.as_deref().map(|file| given::text("--stdin", file, STDIN_BYTES_MAX));
        set("stdin", stdin.transpose()?.map(Value::from));
        set("expires_in", self.expires_in.map(Value::from));
        set("batch", self.batch.clone());
        set("max_failures", self.max_failures.map(Value::from));
        set("output_limit", self.output_limit.map(Value::from));
        set("detached", self.detached.then_some(Value::Bool(true)));
        Ok(body)
    }
}

fn variable(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    pair.map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| "write it as NAME=VALUE".into())
}

/// A time in seconds: `30`, `90s`, `5m`, `2h`, `1d`.
pub(super) fn seconds(text: &str) -> Result<u32, String> {
    let (number, unit) = match text.char_indices().next_back() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3_600),
        Some((at, 'd')) => (&text[..at], 86_400),
        _ => (text, 1),
    };
    let number = number.parse::<u32>().ok().and_then(|n| n.checked_mul(unit)).filter(|n| *n > 0);
    number.ok_or_else(|| "write a time as 30, 90s, 5m, 2h or 1d".into())
}

fn batch(text: &str) -> Result<Value, String> {
    if text.strip_suffix('%').is_some_and(|n| n.parse::<u32>().is_ok()) {
        return Ok(Value::from(text));
    }
    text.parse::<u32>().map(Value::from).map_err(|_| "write a number of hosts, or a share as 20%".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{FromArgMatches as _, Parser};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: Run,
    }

    fn body(args: &[&str]) -> Value {
        let matches =
            <Line as clap::CommandFactory>::command().try_get_matches_from([&["run"], args].concat());
        Line::from_arg_matches(&matches.unwrap()).unwrap().run.body().unwrap()
    }

    #[test]
    fn what_is_asked_for() {
        assert_eq!(
            body(&["web1", "--", "echo $HOME"]),
            json!({"target_type": "node", "target": "web1", "command": "echo $HOME"})
        );
        assert_eq!(
            body(&["all", "--argv", "--", "ls", "a b"]),
            json!({"target_type": "all", "target": null, "argv": ["ls", "a b"]})
        );
        let args = [
            "@web",
            "--timeout",
            "5m",
            "--user",
            "me",
            "--env",
            "A=b=c",
            "--cwd",
            "/",
            "--expires-in",
            "1d",
            "--batch",
            "20%",
            "--max-failures",
            "0",
            "--output-limit",
            "10",
            "--detached",
            "--",
            "ls",
            "a b",
        ];
        assert_eq!(
            body(&args),
            json!({
                "target_type": "group", "target": "web", "command": "ls 'a b'", "timeout": 300, "user": "me",
                "env": {"A": "b=c"}, "cwd": "/", "expires_in": 86400, "batch": "20%", "max_failures": 0,
                "output_limit": 10, "detached": true,
            })
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for args in [
            &["web1"][..],
            &["web1", "ls"],
            &["a b", "--", "ls"],
            &["web1", "--timeout", "soon", "--", "ls"],
            &["web1", "--timeout", "0", "--", "ls"],
            &["web1", "--batch", "x%", "--", "ls"],
            &["web1", "--env", "=x", "--", "ls"],
        ] {
            assert!(Line::try_parse_from([&["run"], args].concat()).is_err(), "{args:?}");
        }
    }

    #[test]
    fn standard_input_comes_from_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("in");
        std::fs::write(&file, "text").unwrap();
        let flag = format!("--stdin={}", file.display());
        assert_eq!(body(&["web1", &flag, "--", "cat"])["stdin"], "text");
    }
}
