//! `signet join-command` and `signet join-tokens`: how new hosts get in.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::Method;

use super::run::seconds;
use crate::client::{names_loopback, parsed, part};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::table::{self, looking, plain};
use crate::term::Look;

/// Make a join token and print the one line that lets a host join with it
///
/// Run the line on the host, where signet-agent must be installed: it enrols, starts the service, and waits until the host
/// is online. The token pins this controller's key, and it is shown this once.
#[derive(Debug, Args)]
pub(crate) struct JoinCommand {
    /// The group that the host joins [default: any that it asks for]
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// What the host's name must look like; * stands for any text
    #[arg(long, value_name = "PATTERN")]
    hostname: Option<String>,
    /// How many hosts may join with it
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    uses: u32,
    /// For how long: 90s, 5m, 2h, 1d
    #[arg(long, default_value = "1h", value_parser = seconds, value_name = "TIME")]
    expires: u32,
    /// The controller's address as hosts reach it [default: that of --url]
    #[arg(long, value_name = "URL")]
    controller: Option<String>,
}

/// List join tokens, or revoke one
#[derive(Debug, Args)]
pub(crate) struct JoinTokens {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Revoke a token: it lets nobody in any more; hosts that joined with it stay
    Revoke {
        /// The token's id, the part before its first dot
        id: String,
    },
}

/// A token in the list.
#[derive(Debug, Clone, Deserialize)]
struct Token {
    id: String,
    group: Option<String>,
    hostname: Option<String>,
    uses: u64,
    uses_left: u64,
    expires_at: String,
    state: String,
}

impl JoinCommand {
    pub(crate) fn run(self, url: &str, context: &Context) -> Result<Exit, Failure> {
        let body = json!({
            "group": self.group,
            "hostname": self.hostname,
            "uses": self.uses,
            "expires_in": self.expires,
        });
        let url = self.controller.as_deref().unwrap_or(url);
        // Sent again after a lost answer it makes another token; the one that nobody saw expires.
        let mut made = context.client.send(&Method::POST, "/api/join-tokens", &[], Some(&body))?;
        let token: Token = parsed(&made)?;
        let line = line(url, made["token"].as_str().unwrap_or_default());
        if let Some(why) = made["warning"].as_str() {
            context.term.warn(why);
        }
        if names_loopback(url) {
            context.term.warn(&format!("other hosts don't reach {url}: give --controller URL"));
        }
        if context.json() {
            made["command"] = Value::from(line);
            return context.print_json(&made);
        }
        writeln!(io::stdout(), "{line}")?;
        let hosts = if token.uses == 1 { "one host".to_owned() } else { format!("{} hosts", token.uses) };
        let until = token.expires_at;
        let note = format!("for {hosts} until {until}; signet join-tokens revoke {} takes it back", token.id);
        context.term.say(Look::Dim, &note);
        Ok(Exit::Success)
    }
}

/// `printf` belongs to the shell, so that no list of processes shows the token.
fn line(url: &str, token: &str) -> String {
    format!(
        "printf %s {} | sudo signet-agent join --controller {} --join-token-file /dev/stdin",
        quoted(token),
        quoted(url)
    )
}

/// A text as a shell takes it for one word.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

impl JoinTokens {
    pub(crate) fn run(self, context: &Context) -> Result<Exit, Failure> {
        if let Some(Action::Revoke { id }) = self.action {
            let path = format!("/api/join-tokens/{}", part(&id));
            context.client.send(&Method::DELETE, &path, &[], None)?;
            if !context.json() {
                writeln!(io::stdout(), "{id} is revoked")?;
            }
            return Ok(Exit::Success);
        }
        let tokens = context.all("/api/join-tokens")?;
        if context.json() {
            return context.print_json(&Value::Array(tokens));
        }
        let mut rows = Vec::new();
        for token in &tokens {
            let token: Token = parsed(token)?;
            let look = if token.state == "open" { Look::Good } else { Look::Dim };
            rows.push(vec![
                plain(token.id),
                looking(look, token.state),
                plain(format!("{} of {}", token.uses_left, token.uses)),
                plain(token.expires_at),
                plain(token.group.unwrap_or_else(|| "any".into())),
                plain(token.hostname.unwrap_or_else(|| "*".into())),
            ]);
        }
        table::print(context.term, &["ID", "STATE", "LEFT", "EXPIRES", "GROUP", "HOSTNAME"], rows)?;
        Ok(Exit::Success)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_one_line_whatever_the_address() {
        assert_eq!(
            line("https://c.example", "a.b.c"),
            "printf %s 'a.b.c' | sudo signet-agent join --controller 'https://c.example' --join-token-file /dev/stdin"
        );
        assert_eq!(quoted("a'; rm b"), r"'a'\''; rm b'");
    }
}
