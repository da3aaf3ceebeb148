//! `signet audit`: who did what, and the proof that nobody changed it since.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use signet_common::KeyId;
use signet_common::trail::{Check, Summary, heads};

use super::keys::fingerprint;
use crate::client::{ClientError, part};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::limits::AUDIT_LINE_BYTES_MAX;
use crate::table::{self, looking, plain};
use crate::term::Look;
use crate::text::one_line;

/// Show who did what, export the audit trail, or check that nothing of it was changed
#[derive(Debug, Args)]
pub(crate) struct Audit {
    #[command(subcommand)]
    action: Option<AuditAction>,
    #[command(flatten)]
    filter: Filter,
}

/// What to look for.
#[derive(Debug, Args)]
struct Filter {
    /// Only of this account, "agent ID", or "nobody"
    #[arg(long)]
    who: Option<String>,
    /// Only this, as command.run
    #[arg(long)]
    action: Option<String>,
    /// Only what was done to this: a task's id, a hostname, an account's name
    #[arg(long)]
    object: Option<String>,
    /// Only success, refused or failed
    #[arg(long)]
    result: Option<String>,
    /// From this moment on (RFC 3339)
    #[arg(long)]
    since: Option<String>,
    /// Before this moment (RFC 3339)
    #[arg(long)]
    until: Option<String>,
    /// At most this many, newest first
    #[arg(long, default_value_t = 50, value_name = "N")]
    limit: u32,
}

#[derive(Debug, Subcommand)]
enum AuditAction {
    /// Write the whole trail as JSON lines
    Export,
    /// Check the trail: signatures, chain, every entry, and that its end was not cut off
    Verify(Verify),
}

/// What to check, and against what.
#[derive(Debug, Args)]
struct Verify {
    /// An export; the controller's own trail unless given
    file: Option<PathBuf>,
    /// Heads that were kept: a controller's log, or what this command printed earlier
    #[arg(long, value_name = "FILE")]
    head: Option<PathBuf>,
    /// One of the fleet's public keys in PEM; asked of the controller unless given, which proves less
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

impl Audit {
    /// Whether it works without a controller.
    pub(crate) fn is_offline(&self) -> bool {
        matches!(&self.action, Some(AuditAction::Verify(Verify { file: Some(_), key: Some(_), .. })))
    }

    pub(crate) fn offline(self, json: bool) -> Result<Exit, Failure> {
        match self.action {
            Some(AuditAction::Verify(Verify { file: Some(file), head, key: Some(key) })) => {
                report(json, verified(&anchor(&key)?, head.as_deref(), open(&file)?)?)
            }
            _ => Err(Failure::Usage("give an export and --key".into())),
        }
    }

    pub(crate) fn run(self, context: &Context) -> Result<Exit, Failure> {
        match self.action {
            None => self.filter.show(context),
            Some(AuditAction::Export) => {
                let (_, mut body) = context.client.bytes("/api/audit/export")?;
                io::copy(&mut body, &mut io::stdout().lock())?;
                Ok(Exit::Success)
            }
            Some(AuditAction::Verify(verify)) => {
                let anchor = match &verify.key {
                    Some(file) => anchor(file)?,
                    None => {
                        let pem = context.client.text("/api/agents/controller-key")?.unwrap_or_default();
                        believed(&fingerprint(&pem)?)?
                    }
                };
                let head = verify.head.as_deref();
                let summary = match &verify.file {
                    Some(file) => verified(&anchor, head, open(file)?)?,
                    None => verified(&anchor, head, context.client.bytes("/api/audit/export")?.1)?,
                };
                report(context.json(), summary)
            }
        }
    }
}

fn open(file: &Path) -> Result<File, Failure> {
    File::open(file).map_err(|e| Failure::Usage(format!("{}: {e}", file.display())))
}

fn believed(fingerprint: &str) -> Result<KeyId, ClientError> {
    fingerprint.parse().map_err(|e| ClientError::Malformed(format!("{e}")))
}

/// The fingerprint of a key in a file.
pub(super) fn anchor(file: &Path) -> Result<KeyId, Failure> {
    let wrong = |why: String| Failure::Usage(format!("--key: {}: {why}", file.display()));
    let pem = std::fs::read_to_string(file).map_err(|e| wrong(e.to_string()))?;
    let key = signet_common::PublicKey::from_pem(&pem).map_err(|e| wrong(e.to_string()))?;
    Ok(key.id().clone())
}

fn kept(file: Option<&Path>) -> Result<BTreeMap<u64, String>, Failure> {
    let Some(file) = file else { return Ok(BTreeMap::new()) };
    let wrong = |why: &dyn std::fmt::Display| Failure::Usage(format!("--head: {}: {why}", file.display()));
    let (mut reader, mut all, mut line) = (BufReader::new(open(file)?), BTreeMap::new(), Vec::new());
    loop {
        line.clear();
        // A log has lines of any length and any bytes; a head is short.
        let read = reader.by_ref().take(AUDIT_LINE_BYTES_MAX).read_until(b'\n', &mut line);
        if read.map_err(|e| wrong(&e))? == 0 {
            break;
        }
        all.extend(heads(&String::from_utf8_lossy(&line)));
    }
    if all.is_empty() { Err(wrong(&"there is no \"audit head\" in it")) } else { Ok(all) }
}

/// Reads an export and says whether it is whole; the inner error says what is wrong with it.
fn verified(
    anchor: &KeyId,
    head: Option<&Path>,
    export: impl Read,
) -> Result<Result<Summary, String>, Failure> {
    let mut check = Check::new(anchor.clone(), kept(head)?);
    let mut reader = BufReader::new(export);
    let mut line = String::new();
    loop {
        line.clear();
        let read = reader.by_ref().take(AUDIT_LINE_BYTES_MAX).read_line(&mut line)?;
        if read == 0 {
            return Ok(check.finish().map_err(|broken| broken.to_string()));
        }
        if let Err(broken) = check.line(line.trim_end_matches('\n')) {
            return Ok(Err(broken.to_string()));
        }
    }
}

fn report(json: bool, summary: Result<Summary, String>) -> Result<Exit, Failure> {
    let mut out = io::stdout().lock();
    match summary {
        Ok(whole) if json => {
            let Summary { first, last, head, entries, unsealed, heads } = whole;
            let answer = json!({ "whole": true, "first": first, "block": last, "head": head, "entries": entries,
                "unsealed": unsealed, "heads_found": heads });
            writeln!(out, "{answer}")?;
            Ok(Exit::Success)
        }
        Ok(whole) => {
            writeln!(
                out,
                "the trail is whole: {} entries in blocks {} to {}",
                whole.entries, whole.first, whole.last
            )?;
            if whole.heads > 0 {
                writeln!(out, "{} kept heads were found again", whole.heads)?;
            }
            if whole.unsealed > 0 {
                writeln!(out, "{} entries are not sealed yet", whole.unsealed)?;
            }
            // In the form that --head reads.
            writeln!(out, "audit head block={} head={}", whole.last, whole.head)?;
            Ok(Exit::Success)
        }
        Err(why) if json => {
            writeln!(out, "{}", json!({ "whole": false, "why": why }))?;
            Ok(Exit::SomeFailed)
        }
        Err(why) => {
            writeln!(out, "THE TRAIL IS NOT WHOLE: {why}")?;
            Ok(Exit::SomeFailed)
        }
    }
}

impl Filter {
    fn show(&self, context: &Context) -> Result<Exit, Failure> {
        let mut path = format!("/api/audit?limit={}", self.limit.min(1_000));
        let filters = [
            ("who", &self.who),
            ("action", &self.action),
            ("object", &self.object),
            ("result", &self.result),
            ("since", &self.since),
            ("until", &self.until),
        ];
        for (name, value) in filters {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", part(value)));
            }
        }
        let mut entries = Vec::new();
        context.client.list(&path, |entry| {
            entries.push(entry);
            Ok::<_, ClientError>(entries.len() < self.limit as usize)
        })?;
        if context.json() {
            return context.print_json(&Value::from(entries));
        }
        let rows = entries.iter().map(|entry| {
            let text = |name: &str| one_line(entry[name].as_str().unwrap_or("-"), usize::MAX);
            let look = match entry["result"].as_str() {
                Some("success") => Look::Good,
                _ => Look::Bad,
            };
            let times =
                entry["count"].as_u64().filter(|n| *n > 1).map_or(String::new(), |n| format!(" ×{n}"));
            let more = match entry["details"].as_str() {
                Some(details) => details.to_owned(),
                None if entry["new"].is_null() => String::new(),
                None => entry["new"].to_string(),
            };
            vec![
                plain(text("at")),
                looking(Look::Bold, text("who")),
                plain(text("from")),
                plain(text("action")),
                plain(text("object")),
                looking(look, text("result") + &times),
                plain(one_line(&more, 60)),
            ]
        });
        let header = ["AT", "WHO", "FROM", "ACTION", "OBJECT", "RESULT", "MORE"];
        table::print(context.term, &header, rows.collect())?;
        Ok(Exit::Success)
    }
}
