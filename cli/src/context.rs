//! What every command that asks a controller has: the controller, the terminal and the form of answers.

use std::io::{self, Write};
use std::path::PathBuf;

use serde_json::Value;

use crate::api::Switch;
use crate::args::{Format, Global};
use crate::client::{Client, ClientError, Token, parsed};
use crate::exit::{Exit, Failure};
use crate::term::Term;

/// Where services keep the controller's data.
const SERVICE_DATA_DIR: &str = "/var/lib/signet";
/// The file in a data directory that holds the admin's token.
pub(crate) const TOKEN_FILE: &str = "admin.token";

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
    /// When the address is no address.
    pub(crate) fn new(global: &Global) -> Result<Self, Failure> {
        let given = global.token.as_deref().filter(|t| !t.trim().is_empty()).map(Token::new);
        let client = Client::new(&global.url, given.or_else(left_token))?;
        Ok(Self { client, term: Term::detect(), format: global.output })
    }

    /// Whether answers are for programs.
    pub(crate) fn json(&self) -> bool {
        self.format == Format::Json
    }

    /// Warns when dispatch is paused; that it can't be asked is no reason to stop here.
    pub(crate) fn warn_when_paused(&self) {
        let switch = self.client.get("/api/dispatch").and_then(|v| parsed::<Switch>(&v));
        if let Ok(Switch { paused: true, reason }) = switch {
            self.warn_of_pause(&reason.unwrap_or_default());
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

/// The token that a controller on this machine left for its owner.
fn left_token() -> Option<Token> {
    let directories = default_data_dir().into_iter().chain([PathBuf::from(SERVICE_DATA_DIR)]);
    let text = directories.map(|d| std::fs::read_to_string(d.join(TOKEN_FILE))).find_map(Result::ok)?;
    Some(Token::new(&text))
}
