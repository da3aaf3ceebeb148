//! `signet repositories`: what opens git repositories, and whose signature their deployments need.

use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args, Subcommand};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use ureq::http::Method;

use super::given;
use crate::client::{ClientError, parsed, part};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::limits::GIVEN_BYTES_MAX;
use crate::table::{self, looking, plain};
use crate::term::Look;
use crate::text::one_line;

/// List what opens git repositories and whose signature they need, show one entry, add, change or remove one
///
/// For each deployment the longest address counts, for what opens it and for its signers each. Secrets are never shown
/// again.
#[derive(Debug, Args)]
pub(crate) struct Repositories {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show an entry with its signers and known hosts
    Show(Chosen),
    /// Add an entry, with what opens it, with signers, or with both
    #[command(group(ArgGroup::new("what").args(["deploy_key", "token_env", "token_stdin", "signers"])
        .required(true).multiple(true)))]
    Add {
        /// The address: one repository as https://… or git@…, or with a final slash all below
        repository: String,
        #[command(flatten)]
        trusts: Trusts,
        #[command(flatten)]
        opens: Opens,
    },
    /// Change what opens it, or its signers; what is not named stays, and jobs that have begun go on as they were
    #[command(group(ArgGroup::new("what").args(["deploy_key", "token_env", "token_stdin", "signers",
        "no_credential", "no_signers"]).required(true).multiple(true)))]
    Set {
        #[command(flatten)]
        entry: Chosen,
        #[command(flatten)]
        trusts: Trusts,
        /// Forget what opens it
        #[arg(long, conflicts_with = "secret")]
        no_credential: bool,
        /// Demand no signature any more
        #[arg(long, conflicts_with = "signers")]
        no_signers: bool,
        #[command(flatten)]
        opens: Opens,
    },
    /// Remove an entry with its secret
    Remove(Chosen),
}

/// An entry that is there.
#[derive(Debug, Args)]
struct Chosen {
    /// The entry's id, or its address as it is in the list
    repository: String,
}

/// What opens a repository. Options name where a secret is, and never are one.
#[derive(Debug, Args)]
#[command(next_help_heading = "What opens it",
    group(ArgGroup::new("secret").args(["deploy_key", "token_env", "token_stdin"])),
    group(ArgGroup::new("secret_token").args(["token_env", "token_stdin"])))]
struct Opens {
    /// File of a private SSH key without a passphrase, for git@… and ssh://…; - is standard input
    // Who gives the key itself shall not see it in an error about an unknown option.
    #[arg(long, allow_hyphen_values = true, value_name = "FILE")]
    deploy_key: Option<PathBuf>,
    /// File of known hosts, as `ssh-keyscan` prints them: the key goes to these alone [default: the first key that a host
    /// shows is noted]
    #[arg(long, requires = "deploy_key", conflicts_with = "secret_token", value_name = "FILE")]
    known_hosts: Option<PathBuf>,
    /// Variable of the environment that holds a token, for https://…
    #[arg(long, value_name = "VARIABLE")]
    token_env: Option<String>,
    /// Read a token from standard input, for https://…
    #[arg(long)]
    token_stdin: bool,
    /// User that goes with the token [default: git]
    #[arg(long, requires = "secret_token", conflicts_with = "deploy_key", value_name = "NAME")]
    token_user: Option<String>,
}

/// Whom it believes.
#[derive(Debug, Args)]
struct Trusts {
    /// File of allowed signers, as OpenSSH has it: one of them must have signed every commit that is deployed, or its tag
    #[arg(long, value_name = "FILE")]
    signers: Option<PathBuf>,
}

impl Opens {
    fn credential(&self) -> Result<Option<Value>, Failure> {
        if let Some(file) = &self.deploy_key {
            if file.to_string_lossy().contains("PRIVATE KEY") {
                let text = "--deploy-key: this is the key itself, and it may be in your shell's history now: give its file";
                return Err(Failure::Usage(text.into()));
            }
            let key = given::text("--deploy-key", file, GIVEN_BYTES_MAX)?;
            let hosts = self.known_hosts.as_deref().map(|f| given::text("--known-hosts", f, GIVEN_BYTES_MAX));
            return Ok(Some(
                json!({ "kind": "deploy_key", "private_key": key, "known_hosts": hosts.transpose()? }),
            ));
        }
        let token = match &self.token_env {
            Some(name) => given::variable("--token-env", name)?,
            None if self.token_stdin => typed_by_a_program("--token-stdin")?,
            None => return Ok(None),
        };
        // Most programs end their output with a line end.
        Ok(Some(json!({ "kind": "https_token", "token": token.trim(), "username": self.token_user })))
    }

    /// What the API says of a field, said of the option that it came from.
    fn named(&self, error: ClientError) -> ClientError {
        let token = if self.token_stdin { "--token-stdin" } else { "--token-env" };
        let secret = if self.deploy_key.is_some() { "--deploy-key" } else { token };
        let options = [
            ("credential.private_key", "--deploy-key"),
            ("credential.known_hosts", "--known-hosts"),
            ("credential.kind", secret),
            ("credential.token", token),
            ("credential.username", "--token-user"),
            ("allowed_signers", "--signers"),
            ("url", "the repository's address"),
        ];
        given::options(error, &options.map(|(field, option)| (field.to_owned(), option.to_owned())))
    }
}

/// Standard input, unless it is a terminal: that would show what is typed.
fn typed_by_a_program(option: &str) -> Result<String, Failure> {
    if io::stdin().is_terminal() {
        let text =
            format!("{option}: standard input is a terminal, which would show the token: give it by a pipe");
        return Err(Failure::Usage(text));
    }
    let text = given::text(option, Path::new("-"), GIVEN_BYTES_MAX)?;
    let there = Some(text).filter(|text| !text.trim().is_empty());
    there.ok_or_else(|| Failure::Usage(format!("{option}: nothing is there")))
}

impl Trusts {
    fn signers(&self) -> Result<Option<Value>, Failure> {
        let text = self.signers.as_deref().map(|file| given::text("--signers", file, GIVEN_BYTES_MAX));
        Ok(text.transpose()?.map(Value::from))
    }
}

/// What is read of an entry.
#[derive(Debug, Deserialize)]
struct Entry {
    id: String,
    url: String,
    credential: Option<Credential>,
    allowed_signers: Option<String>,
    created_at: String,
    updated_at: String,
}

#[derive(Debug, Deserialize)]
struct Credential {
    kind: String,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    fingerprint: Option<String>,
    #[serde(default)]
    known_hosts: Option<String>,
}

impl Credential {
    /// `deploy key`, or `token of git`.
    fn kind(&self) -> String {
        match self.kind.as_str() {
            "https_token" => format!("token of {}", self.username.as_deref().unwrap_or("git")),
            other => other.replace('_', " "),
        }
    }

    /// Likewise, with the key's fingerprint.
    fn words(&self) -> String {
        self.fingerprint.as_ref().map_or_else(|| self.kind(), |print| format!("{} {print}", self.kind()))
    }
}

impl Entry {
    /// Those who may sign; none when nobody has to.
    fn signers(&self) -> Option<usize> {
        let signer = |line: &&str| !line.trim().is_empty() && !line.trim().starts_with('#');
        Some(self.allowed_signers.as_ref()?.lines().filter(signer).count())
    }

    /// How it stands, in a line.
    fn words(&self) -> String {
        let credential =
            self.credential.as_ref().map_or_else(|| "nothing opens it".into(), Credential::words);
        let signers = match self.signers() {
            None => "no signature is needed".to_owned(),
            Some(1) => "the signature of its one signer is needed".to_owned(),
            Some(several) => format!("the signature of one of {several} signers is needed"),
        };
        format!("{}: {credential}, {signers}", one_line(&self.url, usize::MAX))
    }

    fn show(&self, context: &Context) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let credential = self.credential.as_ref();
        let hosts = credential.and_then(|found| found.known_hosts.as_deref());
        let fields = [
            ("repository", self.url.as_str()),
            ("id", &self.id),
            ("credential", &credential.map_or_else(|| "-".into(), Credential::words)),
            ("known hosts", hosts.unwrap_or("-")),
            ("signers", self.allowed_signers.as_deref().unwrap_or("-")),
            ("created", &self.created_at),
            ("changed", &self.updated_at),
        ];
        for (name, text) in fields {
            let mut name = name;
            for line in text.lines().filter(|line| !line.trim().is_empty()) {
                let name = context.term.paint(Look::Dim, &format!("{:<13}", std::mem::take(&mut name)));
                writeln!(out, "{name}{}", one_line(line, usize::MAX))?;
            }
        }
        Ok(())
    }
}

impl Chosen {
    /// The entry's id. An address is looked up as it is written: with another final slash it is another entry's.
    fn id(&self, context: &Context) -> Result<String, Failure> {
        // Every address has one of these, and no id.
        if !self.repository.contains([':', '/']) {
            return Ok(self.repository.clone());
        }
        let entries = context.all("/api/repositories")?;
        let found = entries.iter().find(|entry| entry["url"].as_str() == Some(&self.repository));
        match found {
            Some(entry) => Ok(parsed::<Entry>(entry)?.id),
            // Not repeated: a password may be in it.
            None => Err(Failure::Usage("no entry has this address: see `signet repositories`".into())),
        }
    }

    fn path(&self, context: &Context) -> Result<String, Failure> {
        Ok(format!("/api/repositories/{}", part(&self.id(context)?)))
    }
}

/// A body of the fields that are given.
fn body(fields: [(&str, Option<Value>); 2]) -> Map<String, Value> {
    fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

impl Repositories {
    pub(crate) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let client = &context.client;
        match self.action {
            None => list(context),
            Some(Action::Show(entry)) => {
                let answer = client.get(&entry.path(context)?)?;
                if context.json() {
                    return context.print_json(&answer);
                }
                parsed::<Entry>(&answer)?.show(context)?;
                Ok(Exit::Success)
            }
            Some(Action::Add { repository, opens, trusts }) => {
                let mut body =
                    body([("credential", opens.credential()?), ("allowed_signers", trusts.signers()?)]);
                body.insert("url".into(), repository.into());
                let made = client.send_once(&Method::POST, "/api/repositories", &body.into());
                told(context, &made.map_err(|error| opens.named(error))?)
            }
            Some(Action::Set { entry, opens, trusts, no_credential, no_signers }) => {
                let path = entry.path(context)?;
                let mut credential = opens.credential()?;
                if let Some(new) = &mut credential {
                    keep_beside(new, &client.get(&path)?["credential"]);
                }
                let or_none = |value: Option<Value>, none: bool| value.or(none.then_some(Value::Null));
                let body = Value::from(body([
                    ("credential", or_none(credential, no_credential)),
                    ("allowed_signers", or_none(trusts.signers()?, no_signers)),
                ]));
                let changed = client.send(&Method::PATCH, &path, &[], Some(&body));
                told(context, &changed.map_err(|error| opens.named(error))?)
            }
            Some(Action::Remove(entry)) => {
                client.send(&Method::DELETE, &entry.path(context)?, &[], None)?;
                if !context.json() {
                    writeln!(io::stdout(), "{} is removed", entry.repository)?;
                }
                Ok(Exit::Success)
            }
        }
    }
}

/// The API replaces a credential whole: a new key goes to the hosts of the old one, a new token with its user, unless others
/// are named.
fn keep_beside(new: &mut Value, old: &Value) {
    for name in ["known_hosts", "username"] {
        if new["kind"] == old["kind"] && new[name].is_null() && !old[name].is_null() {
            new[name] = old[name].clone();
        }
    }
}

/// How an entry stands now.
fn told(context: &Context, answer: &Value) -> Result<Exit, Failure> {
    if context.json() {
        return context.print_json(answer);
    }
    writeln!(io::stdout(), "{}", parsed::<Entry>(answer)?.words())?;
    Ok(Exit::Success)
}

fn list(context: &Context) -> Result<Exit, Failure> {
    let entries = context.all("/api/repositories")?;
    if context.json() {
        return context.print_json(&Value::Array(entries));
    }
    let mut rows = Vec::new();
    for entry in &entries {
        let entry: Entry = parsed(entry)?;
        rows.push(vec![
            plain(&entry.id),
            looking(Look::Bold, &entry.url),
            plain(entry.credential.as_ref().map_or_else(|| "-".into(), Credential::kind)),
            entry.signers().map_or_else(|| plain("-"), |count| looking(Look::Good, count.to_string())),
            plain(&entry.updated_at),
        ]);
    }
    table::print(context.term, &["ID", "REPOSITORY", "CREDENTIAL", "SIGNERS", "CHANGED"], rows)?;
    Ok(Exit::Success)
}
