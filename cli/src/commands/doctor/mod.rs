//! `signet doctor`: why does this host not answer?

mod everywhere;
mod host;
mod tasks;

use std::io::{self, Write};

use clap::Args;
use serde::Serialize;

use self::host::Host;
use crate::client::{ClientError, parsed, part};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::term::Look;
use crate::text::one_line;

/// Find out why a host does not answer
///
/// Each line is ok, info, warn or fail; what is not ok has a hint. The exit code is 1 when something fails.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// The host
    host: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Grade {
    Ok,
    /// As it shall be, and good to know.
    Info,
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    grade: Grade,
    /// What was looked at.
    check: &'static str,
    /// What was found.
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

fn ok(check: &'static str, found: impl Into<String>) -> Finding {
    Finding { grade: Grade::Ok, check, found: found.into(), hint: None }
}

fn warn(check: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Finding {
    Finding { grade: Grade::Warn, check, found: found.into(), hint: Some(hint.into()) }
}

fn info(check: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Finding {
    Finding { grade: Grade::Info, ..warn(check, found, hint) }
}

fn fail(check: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Finding {
    Finding { grade: Grade::Fail, ..warn(check, found, hint) }
}

impl Doctor {
    pub(crate) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let mut findings = Vec::new();
        match look(context, &self.host.to_lowercase(), &mut findings) {
            // What was found is all that can be: without its database the controller knows nothing of hosts.
            Err(error) if error.passes() && findings.iter().any(|f| f.grade == Grade::Fail) => {}
            looked => looked?,
        }
        let sick = findings.iter().any(|f| f.grade == Grade::Fail);
        if context.json() {
            let value = serde_json::to_value(&findings).map_err(io::Error::from)?;
            context.print_json(&value)?;
        } else {
            show(context, &findings)?;
        }
        Ok(if sick { Exit::SomeFailed } else { Exit::Success })
    }
}

/// Looks at everything that there is to look at, in the order in which it matters.
fn look(context: &Context, host: &str, findings: &mut Vec<Finding>) -> Result<(), ClientError> {
    everywhere::controller(context, findings)?;
    findings.extend(everywhere::approvals(context)?);
    findings.extend(host::keys(context, host)?);
    match context.client.get(&format!("/api/servers/{}", part(host))) {
        Ok(answer) => {
            let host: Host = parsed(&answer)?;
            findings.extend(host::examine(&host));
            findings.extend(tasks::newest(context, &host)?);
            Ok(())
        }
        Err(error) if error.is_not_found() => {
            let hint = "start signet-agent there with --controller and --join-token, or look for a misspelling in \
                        `signet servers`";
            findings.insert(0, fail("host", format!("{host} is not known"), hint));
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn show(context: &Context, findings: &[Finding]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for finding in findings {
        let (word, look) = match finding.grade {
            Grade::Ok => ("ok  ", Look::Good),
            Grade::Info => ("info", Look::Plain),
            Grade::Warn => ("warn", Look::Warn),
            Grade::Fail => ("fail", Look::Bad),
        };
        let found = one_line(&finding.found, usize::MAX);
        writeln!(out, "{}  {:<11}{found}", context.term.paint(look, word), finding.check)?;
        if let Some(hint) = &finding.hint {
            writeln!(out, "{:<17}{}", "", context.term.paint(Look::Dim, &one_line(hint, usize::MAX)))?;
        }
    }
    Ok(())
}
