//! What a run says as it goes: lines of the log, and how its targets stand.

use std::collections::HashMap;

use signet_common::time::Micros;

use super::members::Member;
use super::results::Said;
use crate::deploy::model::{End, Happening, TargetStatus};
use crate::deploy::service::Jobs;
use crate::deploy::store::{Kept, NewLine};
use crate::deploy::text::{blotted, fatal};
use crate::error::Result;

/// A line of a run's log, with what it calls its host.
pub(super) type Line = (Option<String>, String);

/// Writes down what happens to a job's targets over SSH.
pub(super) struct Progress<'a> {
    jobs: &'a Jobs,
    job: i64,
    /// By what the log calls them: place in the request, and host.
    targets: HashMap<&'a str, (i64, &'a str)>,
    telltales: Vec<String>,
}

impl<'a> Progress<'a> {
    /// For these targets; `telltales` never reach a log or a reason.
    pub(super) fn new(jobs: &'a Jobs, job: i64, members: &'a [Member], telltales: Vec<String>) -> Self {
        let named = |m: &'a Member| (m.alias.as_str(), (m.target.ordinal, m.login.host.as_str()));
        let targets = members.iter().map(named).collect();
        Self { jobs, job, targets, telltales }
    }

    /// A line of the log, with what it calls its host.
    fn line(&self, (alias, line): (Option<String>, String)) -> NewLine {
        let named = alias.and_then(|alias| self.targets.get(alias.as_str()));
        let host = named.map(|(_, host)| (*host).to_owned());
        NewLine { at: Micros::now(), host, line: blotted(&line, &self.telltales) }
    }

    /// Adds lines to the log.
    pub(super) async fn lines(&self, lines: Vec<(Option<String>, String)>) -> Result<()> {
        let lines: Vec<NewLine> = lines.into_iter().map(|line| self.line(line)).collect();
        self.jobs.record(self.job, &lines, &[]).await.map(drop)
    }

    /// Moves targets.
    pub(super) async fn targets(&self, happenings: Vec<(i64, Happening)>) -> Result<()> {
        self.jobs.record(self.job, &[], &happenings).await.map(drop)
    }

    /// Adds lines, and moves targets as Ansible says.
    pub(super) async fn take(&self, lines: Vec<Line>, said: &[Said]) -> Result<()> {
        if lines.is_empty() && said.is_empty() {
            return Ok(());
        }
        let one = |said: &Said| {
            let (ordinal, _) = self.targets.get(said.host.as_str())?;
            Some((*ordinal, said.happening(&self.telltales)))
        };
        let happenings: Vec<(i64, Happening)> = said.iter().filter_map(one).collect();
        let kept = |said: (Option<String>, String)| match &said {
            (Some(_), _) => Kept::Word(self.line(said)),
            (None, line) if line.starts_with("PLAY RECAP") => Kept::Word(self.line(said)),
            (None, _) => Kept::Output(self.line(said)),
        };
        let lines = lines.into_iter().map(kept).collect();
        self.jobs.record_fitting(self.job, lines, &happenings).await.map(drop)
    }

    /// Ends what has no end among these, and says so in the log.
    pub(super) async fn end_the_rest(&self, among: &[&str], why: &str) -> Result<()> {
        let left = self.end_the_rest_quietly(among, why).await?;
        let line = |host: String| {
            let line = fatal(&host, false, why);
            (Some(host), line)
        };
        self.lines(left.into_iter().map(line).collect()).await
    }

    /// Ends what has no end among these; gives what the log calls these.
    pub(super) async fn end_the_rest_quietly(&self, among: &[&str], why: &str) -> Result<Vec<String>> {
        let end = Happening::Ended(End::bad(TargetStatus::Failed, why));
        let known = || among.iter().filter_map(|alias| Some((*alias, self.targets.get(alias)?.0)));
        let all: Vec<(i64, Happening)> = known().map(|(_, ordinal)| (ordinal, end.clone())).collect();
        let moved = self.jobs.record(self.job, &[], &all).await?;
        let mut left: Vec<(i64, String)> = known()
            .filter(|(_, ordinal)| moved.contains(ordinal))
            .map(|(alias, ordinal)| (ordinal, alias.to_owned()))
            .collect();
        left.sort();
        Ok(left.into_iter().map(|(_, alias)| alias).collect())
    }
}
