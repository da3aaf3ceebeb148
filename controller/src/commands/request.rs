//! `POST /api/commands`: parsed and checked at the edge.

use std::collections::BTreeMap;

use serde::Deserialize;
use signet_common::Hostname;
use signet_common::limits::{
    COMMAND_BYTES_MAX, COMMAND_TEXT_BYTES_MAX, EXPIRY_SECONDS_BATCH, EXPIRY_SECONDS_DEFAULT,
    EXPIRY_SECONDS_MAX, OUTPUT_BYTES_MAX, TIMEOUT_SECONDS_MAX,
};
use utoipa::ToSchema;

use super::model::{Options, TargetType};
use crate::dispatch::BatchSize;
use crate::error::{Error, Result};
use crate::hosts;
use crate::http::dialect::{REQUIRED, texts};

/// The body, as it may come.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(super) struct CommandRequest {
    /// `node`, `group`, `all` or `label`.
    pub target_type: Option<String>,
    /// The host, group or label (`name=value`); ignored with `all`.
    pub target: Option<String>,
    /// For `/bin/sh -c`, at most 131,071 bytes. Either this or `argv`.
    pub command: Option<String>,
    /// A program and its arguments, without a shell.
    pub argv: Option<Vec<String>>,
    /// Seconds from the start, 1 to 86,400; 30 unless given.
    pub timeout: Option<i64>,
    /// Account to run as; the agent's own unless given.
    pub user: Option<String>,
    /// Added to the clean environment.
    pub env: Option<BTreeMap<String, String>>,
    /// Working directory; the user's home unless given.
    pub cwd: Option<String>,
    /// Text for the standard input.
    pub stdin: Option<String>,
    /// Seconds in which it may start: 600 unless given, 86,400 with `batch`, at most 604,800.
    pub expires_in: Option<i64>,
    /// Hosts at a time: a number, or a share such as `"20%"`.
    #[schema(value_type = Option<String>)]
    pub batch: Option<serde_json::Value>,
    /// Failures above which nothing more is released.
    pub max_failures: Option<i64>,
    /// Output kept per stream in bytes: 1 MiB unless given, at most 64 MiB.
    pub output_limit: Option<i64>,
    /// Run it in a systemd unit of its own and don't follow it.
    pub detached: Option<bool>,
}

/// A request that makes sense.
#[derive(Debug, Clone)]
pub struct Checked {
    /// Which hosts.
    pub target: hosts::Target,
    /// As asked.
    pub target_type: TargetType,
    /// As asked; none with `all`.
    pub target_text: Option<String>,
    /// The shell's text, unless there is `argv`.
    pub command: Option<String>,
    /// What to show as the command.
    pub shown: String,
    /// Seconds.
    pub timeout: u32,
    /// The account.
    pub user: Option<String>,
    /// Variables.
    pub env: BTreeMap<String, String>,
    /// Standard input.
    pub stdin: Option<String>,
    /// Seconds.
    pub expires_in: u32,
    /// Hosts at a time.
    pub batch: Option<BatchSize>,
    /// What is stored and shown beyond the document.
    pub options: Options,
}

impl CommandRequest {
    /// Checks everything.
    ///
    /// # Errors
    /// [`Error::Invalid`] in the document's words where it has them, naming the field; [`Error::TooLarge`].
    pub(super) fn check(self) -> Result<Checked> {
        let (target_type, target_text, target) = self.target()?;
        let shown = self.program()?;
        let timeout = whole("timeout", self.timeout, 30, 1, i64::from(TIMEOUT_SECONDS_MAX))?;
        let batch = self.batch.as_ref().map(batch_size).transpose()?;
        let expiry = if batch.is_some() { EXPIRY_SECONDS_BATCH } else { EXPIRY_SECONDS_DEFAULT };
        let expires_in = whole("expires_in", self.expires_in, expiry, 1, i64::from(EXPIRY_SECONDS_MAX))?;
        let user = self.user.clone().map(|user| account(&user).map(|()| user)).transpose()?;
        let env = self.env.clone().unwrap_or_default();
        env.iter().try_for_each(|(name, value)| variable(name, value))?;
        if let Some(cwd) = &self.cwd
            && (!cwd.starts_with('/') || cwd.contains('\0'))
        {
            return Err(Error::invalid("cwd", "cwd must be an absolute path"));
        }
        let limit = |n: i64| whole("output_limit", Some(n), 0, 0, OUTPUT_BYTES_MAX.cast_signed());
        let failures = |n: i64| whole("max_failures", Some(n), 0, 0, i64::from(u32::MAX));
        let options = Options {
            argv: self.argv.clone(),
            env: env.keys().cloned().collect(),
            cwd: self.cwd.clone(),
            stdin_bytes: self.stdin.as_ref().map(|s| s.len() as u64),
            expires_in: self.expires_in.map(|_| expires_in),
            batch: batch.map(|b| match b {
                BatchSize::Hosts(n) => n.to_string(),
                BatchSize::Percent(p) => format!("{p}%"),
            }),
            max_failures: self.max_failures.map(failures).transpose()?,
            output_limit: self.output_limit.map(limit).transpose()?.map(u64::from),
            detached: self.detached.unwrap_or(false),
        };
        self.size(&env)?;
        Ok(Checked {
            target,
            target_type,
            target_text,
            command: self.command,
            shown,
            timeout,
            user,
            env,
            stdin: self.stdin,
            expires_in,
            batch,
            options,
        })
    }

    fn target(&self) -> Result<(TargetType, Option<String>, hosts::Target)> {
        let kind = self.target_type.as_deref().and_then(TargetType::parse);
        let kind = kind.ok_or_else(|| Error::invalid("target_type", texts::TARGET_TYPE))?;
        if kind == TargetType::All {
            return Ok((kind, None, hosts::Target::All));
        }
        let text = self.target.clone().filter(|t| !t.is_empty());
        let text = text.ok_or_else(|| Error::invalid("target", texts::TARGET_MISSING))?;
        let target = match kind {
            TargetType::Node => {
                // A name that no host can have names no host.
                let host: Hostname = text.parse().map_err(|_| unknown_node())?;
                hosts::Target::Node(host)
            }
            TargetType::Label => {
                let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
                let (name, value) =
                    pair.ok_or_else(|| Error::invalid("target", "target must be name=value with label"))?;
                hosts::Target::Label { name: name.to_owned(), value: value.to_owned() }
            }
            _ => hosts::Target::Group(text.clone()),
        };
        Ok((kind, Some(text), target))
    }

    /// Checks `command` and `argv`, and says what to show.
    fn program(&self) -> Result<String> {
        let nul = |text: &str| text.contains('\0');
        match (&self.command, &self.argv) {
            (Some(_), Some(_)) => Err(Error::invalid("argv", "give either command or argv, not both")),
            (None, None) => Err(Error::invalid("command", REQUIRED)),
            (Some(text), None) if text.is_empty() => {
                Err(Error::invalid("command", "command must not be empty"))
            }
            (Some(text), None) if nul(text) => {
                Err(Error::invalid("command", "command must not contain a NUL character"))
            }
            (Some(text), None) if text.len() > COMMAND_TEXT_BYTES_MAX => Err(Error::invalid(
                "command",
                format!(
                    "command is longer than {COMMAND_TEXT_BYTES_MAX} bytes; pass large data through stdin"
                ),
            )),
            (Some(text), None) => Ok(text.clone()),
            (None, Some(argv)) if argv.first().is_none_or(String::is_empty) => {
                Err(Error::invalid("argv", "argv must begin with a program"))
            }
            (None, Some(argv)) if argv.iter().any(|a| nul(a)) => {
                Err(Error::invalid("argv", "argv must not contain a NUL character"))
            }
            (None, Some(argv)) if argv.iter().any(|a| a.len() > COMMAND_TEXT_BYTES_MAX) => {
                Err(Error::invalid(
                    "argv",
                    format!(
                        "an argument is longer than {COMMAND_TEXT_BYTES_MAX} bytes; pass large data through stdin"
                    ),
                ))
            }
            (None, Some(argv)) => Ok(argv.iter().map(|a| quoted(a)).collect::<Vec<_>>().join(" ")),
        }
    }

    fn size(&self, env: &BTreeMap<String, String>) -> Result<()> {
        let text = self.command.as_ref().map_or(0, String::len);
        let argv: usize = self.argv.iter().flatten().map(String::len).sum();
        let env: usize = env.iter().map(|(k, v)| k.len() + v.len()).sum();
        let all = text + argv + env + self.stdin.as_ref().map_or(0, String::len);
        if all > COMMAND_BYTES_MAX {
            return Err(Error::TooLarge(format!(
                "command, env and stdin together are larger than {COMMAND_BYTES_MAX} bytes"
            )));
        }
        Ok(())
    }
}

/// 404 of a target that names nothing.
#[must_use]
pub(super) fn unknown_node() -> Error {
    Error::NotFound("Unknown node".into())
}

fn whole(field: &str, value: Option<i64>, default: u32, min: i64, max: i64) -> Result<u32> {
    let value = value.unwrap_or(i64::from(default));
    if !(min..=max).contains(&value) {
        return Err(Error::invalid(field, format!("{field} must be between {min} and {max}")));
    }
    u32::try_from(value)
        .map_err(|_| Error::invalid(field, format!("{field} must be between {min} and {max}")))
}

fn batch_size(value: &serde_json::Value) -> Result<BatchSize> {
    let bad = || {
        Error::invalid("batch", "batch must be a number of hosts from 1, or a share from \"1%\" to \"100%\"")
    };
    match value {
        serde_json::Value::Number(n) => {
            let hosts = n.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
            hosts.map(BatchSize::Hosts).ok_or_else(bad)
        }
        serde_json::Value::String(text) => {
            let percent = text.strip_suffix('%').and_then(|t| t.parse::<u32>().ok());
            percent.filter(|p| (1..=100).contains(p)).map(BatchSize::Percent).ok_or_else(bad)
        }
        _ => Err(bad()),
    }
}

fn account(user: &str) -> Result<()> {
    // What shadow's useradd takes, which is what /etc/passwd can hold.
    let ok = (1..=32).contains(&user.len())
        && !user.starts_with('-')
        && user.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'$'));
    ok.then_some(()).ok_or_else(|| Error::invalid("user", "user is not a valid account name"))
}

fn variable(name: &str, value: &str) -> Result<()> {
    let ok = !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0');
    ok.then_some(()).ok_or_else(|| Error::invalid(format!("env.{name}"), "not a valid environment variable"))
}

/// A word as a shell would read it back.
fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./=:,@%+".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(json: &str) -> Result<Checked> {
        serde_json::from_str::<CommandRequest>(json).unwrap().check()
    }

    fn refused(json: &str) -> (String, String) {
        match request(json).unwrap_err() {
            Error::Invalid { field, message } => (field, message),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_documents_errors_have_its_words() {
        assert_eq!(
            refused(r#"{"target_type":"x","command":"ls"}"#),
            ("target_type".into(), "无效的目标类型".into())
        );
        assert_eq!(refused(r#"{"command":"ls"}"#).1, "无效的目标类型");
        for target in ["", r#","target":null"#, r#","target":"""#] {
            let json = format!(r#"{{"target_type":"node","command":"ls"{target}}}"#);
            assert_eq!(refused(&json), ("target".into(), "目标值缺失".into()));
        }
    }

    #[test]
    fn defaults_are_the_documents() {
        let checked = request(r#"{"target_type":"all","target":"ignored","command":"ls -la"}"#).unwrap();
        assert_eq!((checked.timeout, checked.user, checked.target_text), (30, None, None));
        assert_eq!(checked.expires_in, 600);
        let batched = request(r#"{"target_type":"all","command":"ls","batch":"20%"}"#).unwrap();
        assert_eq!((batched.expires_in, batched.batch), (86_400, Some(BatchSize::Percent(20))));
    }

    #[test]
    fn bad_values_name_their_field() {
        let cases = [
            (r#""command":"""#, "command"),
            (r#""command":"a\u0000b""#, "command"),
            (r#""command":"a","argv":["b"]"#, "argv"),
            (r#""argv":[]"#, "argv"),
            (r#""command":"a","timeout":0"#, "timeout"),
            (r#""command":"a","timeout":86401"#, "timeout"),
            (r#""command":"a","user":"a b""#, "user"),
            (r#""command":"a","cwd":"tmp""#, "cwd"),
            (r#""command":"a","env":{"A=B":"c"}"#, "env.A=B"),
            (r#""command":"a","batch":0"#, "batch"),
            (r#""command":"a","batch":"101%""#, "batch"),
            (r#""command":"a","max_failures":-1"#, "max_failures"),
            (r#""command":"a","output_limit":67108865"#, "output_limit"),
            (r#""command":"a","expires_in":604801"#, "expires_in"),
        ];
        for (fields, field) in cases {
            assert_eq!(refused(&format!(r#"{{"target_type":"all",{fields}}}"#)).0, field, "{fields}");
        }
        let long = format!(r#"{{"target_type":"all","command":"{}"}}"#, "a".repeat(131_072));
        assert!(refused(&long).1.contains("stdin"));
        let stdin =
            format!(r#"{{"target_type":"all","command":"cat","stdin":"{}"}}"#, "a".repeat(256 * 1024));
        assert!(matches!(request(&stdin), Err(Error::TooLarge(_))));
    }

    proptest! {
        #[test]
        fn argv_is_shown_as_a_shell_reads_it(words in proptest::collection::vec("[ -~]{0,12}", 1..5)) {
            prop_assume!(!words[0].is_empty());
            let line: Vec<String> = words.iter().map(|w| quoted(w)).collect();
            let script = format!("printf '%s\\n' {}", line.join(" "));
            let out = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
            let expected: String = words.iter().map(|w| format!("{w}\n")).collect();
            prop_assert_eq!(String::from_utf8(out.stdout).unwrap(), expected);
        }
    }
}
