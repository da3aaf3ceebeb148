//! `signet verify`: whether a task's bundle is true, without asking any controller.

use std::fs;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};
use signet_common::KeyId;
use signet_common::allowed_signers::AllowedSigners;
use signet_common::bundle::{Approved, Proof, Proven, Target, check};
use signet_common::limits::BUNDLE_BYTES_MAX;
use signet_common::sshsig::SshPublicKey;
use signet_common::statement::NAMESPACE;

use super::audit::anchor;
use crate::exit::{Exit, Failure};
use crate::table::{self, looking, plain};
use crate::term::{Look, Term, state_look};
use crate::text::{one_line, shell_join};

/// Check a task's bundle: what was asked, who agreed, and what each host said, each by its signature
///
/// Works offline. Exit code 0: everything in it holds; 1: it does not.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The bundle, as `signet task bundle` wrote it
    file: PathBuf,
    /// One of the fleet's public keys in PEM, as GET /api/agents/controller-key gives it
    #[arg(long, value_name = "FILE", required_unless_present = "fingerprint")]
    key: Option<PathBuf>,
    /// Its fingerprint, as `signet keys` prints it
    #[arg(long, value_name = "HEX", conflicts_with = "key")]
    fingerprint: Option<String>,
    /// Approvers' keys in OpenSSH's format: every signature must be by one of them
    #[arg(long, value_name = "FILE")]
    allowed_signers: Option<PathBuf>,
}

impl Verify {
    pub(crate) fn run(self, json: bool) -> Result<Exit, Failure> {
        let anchor: KeyId = match (&self.key, &self.fingerprint) {
            (Some(file), _) => anchor(file)?,
            (None, Some(text)) => {
                text.parse().map_err(|_| Failure::Usage("--fingerprint: 64 lower-case hex digits".into()))?
            }
            (None, None) => return Err(Failure::Usage("give --key or --fingerprint".into())),
        };
        let signers = self.allowed_signers.as_deref().map(signers).transpose()?;
        let wrong = |e: io::Error| Failure::Usage(format!("{}: {e}", self.file.display()));
        let (mut text, most) = (String::new(), BUNDLE_BYTES_MAX as u64 * 2);
        fs::File::open(&self.file).map_err(wrong)?.take(most).read_to_string(&mut text).map_err(wrong)?;
        match check(text.trim_end_matches('\n'), &anchor, signers.as_ref()) {
            Ok(proven) if json => {
                writeln!(io::stdout(), "{}", as_json(&proven))?;
                Ok(Exit::Success)
            }
            Ok(proven) => {
                show(&proven)?;
                Ok(Exit::Success)
            }
            Err(why) if json => {
                writeln!(io::stdout(), "{}", json!({ "proven": false, "why": why.to_string() }))?;
                Ok(Exit::SomeFailed)
            }
            Err(why) => {
                writeln!(io::stdout(), "THE BUNDLE PROVES NOTHING: {why}")?;
                Ok(Exit::SomeFailed)
            }
        }
    }
}

fn signers(file: &Path) -> Result<AllowedSigners, Failure> {
    let wrong =
        |e: &dyn std::fmt::Display| Failure::Usage(format!("--allowed-signers: {}: {e}", file.display()));
    let text = fs::read_to_string(file).map_err(|e| wrong(&e))?;
    AllowedSigners::parse(&text, NAMESPACE).map_err(|e| wrong(&e))
}

/// Who says how it ended on a host.
const fn word(proof: &Proof) -> &'static str {
    match proof {
        Proof::Agent => "its agent",
        Proof::Claim => "the controller alone",
    }
}

fn as_json(proven: &Proven) -> Value {
    let approval = proven.approved.as_ref().map(|approved| {
        let signature =
            |(key, who): &(SshPublicKey, Option<String>)| json!({ "fingerprint": key.fingerprint(), "who": who });
        json!({
            "requester": approved.requester,
            "approvers": approved.approvers,
            "signatures": approved.signatures.iter().map(signature).collect::<Vec<_>>(),
            "without_key": approved.without_key(),
        })
    });
    let target = |(target, proof): &(Target, Proof)| {
        json!({ "hostname": target.hostname, "state": target.state, "exit_code": target.exit_code,
            "by": if *proof == Proof::Agent { "agent" } else { "controller" } })
    };
    json!({
        "proven": true,
        "task_id": proven.task_id,
        "command": proven.command.as_ref().map(|c| c.command.clone().or_else(|| c.argv.as_deref().map(shell_join))),
        "withheld": proven.withheld,
        "approval": approval,
        "targets": proven.targets.iter().map(target).collect::<Vec<_>>(),
    })
}

fn show(proven: &Proven) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "every signature in this bundle holds")?;
    let mut line = |name: &str, value: &str| writeln!(out, "{name:<10}{}", one_line(value, usize::MAX));
    line("task", proven.task_id.as_str())?;
    if let Some(command) = &proven.command {
        let text = command.command.clone().or_else(|| command.argv.as_deref().map(shell_join));
        line("command", &text.unwrap_or_default())?;
        line("user", command.user.as_deref().unwrap_or("(the agent's own)"))?;
    }
    if proven.withheld > 0 {
        line("withheld", "the signed command: it held values of an environment or an input")?;
    }
    if let Some(approved) = &proven.approved {
        approval(&mut line, approved)?;
    }
    writeln!(out)?;
    drop(out);
    let rows = proven.targets.iter().map(|(target, proof)| {
        vec![
            looking(Look::Bold, target.hostname.to_string()),
            looking(state_look(&target.state), target.state.clone()),
            plain(target.exit_code.map_or_else(|| "-".to_owned(), |code| code.to_string())),
            looking(if *proof == Proof::Agent { Look::Good } else { Look::Warn }, word(proof)),
        ]
    });
    table::print(Term::detect(), &["HOST", "STATE", "EXIT", "WHO SAYS SO"], rows.collect())
}

fn approval(line: &mut impl FnMut(&str, &str) -> io::Result<()>, approved: &Approved) -> io::Result<()> {
    line("asked by", &approved.requester)?;
    line("approved", &format!("by {}, says the controller", approved.approvers.join(", ")))?;
    for (key, who) in &approved.signatures {
        let who = who.as_deref().map_or(String::new(), |who| format!(", the key of {who}"));
        line("signed", &format!("with {}{who}", key.fingerprint()))?;
    }
    if approved.without_key() > 0 {
        line("unsigned", &format!("{}: the controller alone says that they agreed", approved.without_key()))?;
    }
    Ok(())
}
