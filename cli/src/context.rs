//! What every command that asks a controller has: the controller, the terminal and the form of answers.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::api::Switch;
use crate::client::{self, Client, ClientError, Token, parsed};
use crate::exit::{Exit, Failure};
use crate::term::Term;

/// Where services keep the controller's data.
const SERVICE_DATA_DIR: &str = "/var/lib/signet";
/// The file in a data directory that holds the admin's token.
pub(crate) const TOKEN_FILE: &str = "admin.token";

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// The controller's address [env: SIGNET_URL]
    // clap would name an option that a variable sets in each usage error, as if it had to be given.
    #[arg(long, global = true, default_value_t = default_url(), value_name = "URL")]
    pub url: String,
    /// API token [env: SIGNET_TOKEN] [default for a controller on this machine: admin.token of the default data directory]
    // The variables are read where a flag of the other kind can go before them.
    #[arg(long, global = true, value_name = "TOKEN")]
    pub token: Option<String>,
    /// File that holds the API token [env: SIGNET_TOKEN_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<String>,
    /// Tables and text, or the API's own objects
    #[arg(long, global = true, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    pub output: Format,
}

/// `SIGNET_URL`, else where a controller on this machine listens.
fn default_url() -> String {
    let set = std::env::var("SIGNET_URL").ok().filter(|url| !url.is_empty());
    set.unwrap_or_else(|| "http://127.0.0.1:8080".into())
}

/// How answers are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// The API's own objects; streams have one on each line.
    Json,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Context {
    pub client: Client,
    pub term: Term,
    pub format: Format,
}

impl Context {
    /// Finds the token and checks the address.
    ///
    /// # Errors
    /// When the address is no address, or there is no token for it.
    pub(crate) fn new(global: &Global) -> Result<Self, Failure> {
        // Before anything is said of a token for it.
        client::address(&global.url)?;
        let client = Client::new(&global.url, token(global)?)?;
        Ok(Self { client, term: Term::detect(), format: global.output })
    }

    /// Whether answers are for programs.
    pub(crate) fn json(&self) -> bool {
        self.format == Format::Json
    }

    /// Warns when dispatch is paused; that it can't be asked is no reason to stop here.
    pub(crate) fn warn_when_paused(&self) {
        let switch = self.client.get("/api/dispatch").and_then(|v| parsed::<Switch>(&v));
        let Ok(switch) = switch else { return };
        if let Some(why) = switch.held {
            self.term.warn(&format!("nothing new starts: {why}"));
        }
        if switch.paused {
            self.warn_of_pause(&switch.reason.unwrap_or_default());
        }
    }

    /// Says that dispatch is paused.
    pub(crate) fn warn_of_pause(&self, reason: &str) {
        let why = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
        self.term.warn(&format!("dispatch is paused{why}: nothing new starts until `signet pause off`"));
    }

    /// Prints an object or list of the API for a program, and says that it worked.
    ///
    /// # Errors
    /// When standard output can't be written to.
    pub(crate) fn print_json(&self, value: &Value) -> Result<Exit, Failure> {
        let mut out = io::stdout().lock();
        serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from)?;
        writeln!(out)?;
        Ok(Exit::Success)
    }

    /// Prints one object of a stream on one line.
    ///
    /// # Errors
    /// When standard output can't be written to.
    pub(crate) fn print_json_line(&self, value: &Value) -> Result<(), Failure> {
        writeln!(io::stdout(), "{value}").map_err(Failure::Io)
    }

    /// A whole list.
    ///
    /// # Errors
    /// When the controller fails.
    pub(crate) fn all(&self, path: &str) -> Result<Vec<Value>, ClientError> {
        let mut rows = Vec::new();
        self.client.list(path, |row| {
            rows.push(row);
            Ok::<_, ClientError>(true)
        })?;
        Ok(rows)
    }
}

/// `SIGNET_DATA_DIR`, else `$XDG_DATA_HOME/signet`, else `~/.local/share/signet`.
pub(crate) fn default_data_dir() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let given = std::env::var_os("SIGNET_DATA_DIR").filter(|v| !v.is_empty()).map(PathBuf::from);
    given
        .or_else(|| Some(absolute("XDG_DATA_HOME")?.join("signet")))
        .or_else(|| Some(absolute("HOME")?.join(".local/share/signet")))
}

/// The token that was given, else the one that a controller on this machine left for its owner. That one is for this
/// machine alone: sent to any other address, it would be whoever listens there.
fn token(global: &Global) -> Result<Option<Token>, Failure> {
    let variable = |name: &str| std::env::var(name).ok();
    let ways = [
        (global.token.clone(), global.token_file.clone()),
        (variable("SIGNET_TOKEN"), variable("SIGNET_TOKEN_FILE")),
    ];
    for (text, file) in ways {
        let set = |text: Option<String>| text.filter(|t| !t.trim().is_empty());
        if let Some(text) = set(text) {
            return Ok(Some(Token::new(&text)));
        }
        if let Some(file) = set(file) {
            let text = std::fs::read_to_string(&file);
            let text = text.map_err(|e| Failure::Usage(format!("--token-file: {file}: {e}")))?;
            return Ok(Some(Token::new(&text)));
        }
    }
    if client::names_loopback(&global.url) {
        return Ok(left_token());
    }
    Err(Failure::Usage(format!(
        "no token for {}: give --token, --token-file, SIGNET_TOKEN or SIGNET_TOKEN_FILE (the {TOKEN_FILE} that lies here \
         is for a controller on this machine only)",
        global.url
    )))
}

fn left_token() -> Option<Token> {
    let directories = default_data_dir().into_iter().chain([PathBuf::from(SERVICE_DATA_DIR)]);
    let text = directories.map(|d| std::fs::read_to_string(d.join(TOKEN_FILE))).find_map(Result::ok)?;
    Some(Token::new(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn global(url: &str) -> Global {
        Global { url: url.into(), token: None, token_file: None, output: Format::Text }
    }

    #[test]
    fn the_token_that_lies_here_stays_here() {
        for url in [
            "http://signet.example.com",
            "https://192.0.2.1:8080",
            "http://localhost.example.com",
            "http://127.0.0.1@evil.example",
        ] {
            let error = Context::new(&global(url)).unwrap_err();
            assert!(matches!(&error, Failure::Usage(text) if text.contains("--token")), "{error}");
            let given = Global { token: Some("t".into()), ..global(url) };
            assert!(token(&given).unwrap().is_some());
        }
        for url in ["http://127.0.0.1:8080", "http://[::1]:1", "http://localhost:1/"] {
            assert!(token(&global(url)).is_ok(), "{url}");
        }
    }

    #[test]
    fn an_address_that_is_none_is_told_before_its_token() {
        for url in ["foo", "ftp://h", ""] {
            let error = Context::new(&global(url)).unwrap_err();
            assert!(error.to_string().contains("--url") && error.code().0 == 2, "{error}");
        }
    }

    #[test]
    fn a_token_comes_from_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "s3cret\n").unwrap();
        let given = |file: &std::path::Path| Global {
            token_file: Some(file.display().to_string()),
            ..global("https://signet.example.com")
        };
        assert!(token(&given(&file)).unwrap().is_some());
        assert!(matches!(token(&given(&dir.path().join("none"))), Err(Failure::Usage(_))));
    }
}
