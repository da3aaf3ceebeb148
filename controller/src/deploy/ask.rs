//! Making a job: who may, for which hosts, and the same once more.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use signet_common::Hostname;
use signet_common::deploy::{Health, Probe};
use signet_common::statement::Kind;
use signet_common::time::Micros;

use super::model::{self, Engine, Job, Plan, Target};
use super::request::{Asked, Checked};
use super::rolling::misfits;
use super::secrets::{self, Login, Secrets};
use super::seen::{at_paths, of_repositories};
use super::service::Jobs;
use super::store::{self, NewJob};
use super::text::printable;
use crate::accounts::within;
use crate::approvals::Need;
use crate::audit::{self, Action, Author, Note};
use crate::error::{Error, Result};
use crate::hosts::{self, Candidate};
use crate::http::extract::Caller;
use crate::limits::{JOB_SECRETS_SECONDS, JOB_TARGETS_MAX};
use crate::repositories::{self, Credential};
use crate::store::{Tx, in_transaction};

impl Jobs {
    /// Makes a job; it begins by itself.
    pub(super) async fn ask(&self, by: &Author, caller: &Caller, request: Checked) -> Result<i64> {
        let (targets, wrong) = self.expanded(request.targets).await?;
        let plan = match request.plan {
            Ok(plan) if wrong.is_empty() => plan,
            plan => {
                return Err(Error::InvalidFields(plan.err().into_iter().flatten().chain(wrong).collect()));
            }
        };
        allowed(caller, &plan)?;
        let until = Micros::now().plus_seconds(JOB_SECRETS_SECONDS);
        let hosts: Vec<String> = targets.iter().map(|target| target.row().0).collect();
        let wrong = misfits(&plan, &hosts.iter().map(String::as_str).collect::<Vec<_>>());
        if !wrong.is_empty() {
            return Err(Error::InvalidFields(wrong));
        }
        self.signed(&plan, &targets).await?;
        let credential = request.credential.map(|credential| (plan.git_repo.clone(), credential));
        let ignored = request.unknown.shown().map(|names| ignored(&names));
        let new = New { targets, credential, until, origin: Origin::Request, ignored };
        self.make(by, caller, &plan, &new).await
    }

    /// Every host by itself, as groups are now; and what is wrong, by field.
    async fn expanded(&self, asked: Vec<(usize, Asked)>) -> Result<(Vec<Whom>, Vec<(String, String)>)> {
        let enrolled = self.enrolled(&asked).await?;
        let mut targets = Vec::new();
        let mut wrong = Vec::new();
        let mut over_ssh = Vec::new();
        let mut known: BTreeSet<Hostname> = BTreeSet::new();
        for (index, asked) in asked {
            let (found, field, why) = match asked {
                Asked::Ssh(login) => {
                    over_ssh.push((index, login.host.to_ascii_lowercase()));
                    targets.push(Whom::Ssh(login));
                    continue;
                }
                Asked::Host(host) => {
                    let why = format!("required: {host} is no enrolled host");
                    let found = enrolled.hosts.contains(&host).then_some(host);
                    (found.into_iter().collect(), "auth", why)
                }
                Asked::Group(group) => {
                    let found = enrolled.groups.get(&group).cloned().unwrap_or_default();
                    (found, "group", "names no enrolled host".into())
                }
            };
            if found.is_empty() {
                wrong.push((format!("targets[{index}].{field}"), why));
            }
            targets.extend(found.into_iter().filter(|host| known.insert(host.clone())).map(Whom::Agent));
        }
        for (index, host) in over_ssh {
            if known.iter().any(|agent| agent.as_str() == host) {
                let why = "its agent deploys to this host already";
                wrong.push((format!("targets[{index}].host"), why.into()));
            }
        }
        if targets.len() > JOB_TARGETS_MAX {
            wrong.push(("targets".into(), format!("must name at most {JOB_TARGETS_MAX} hosts")));
        }
        Ok((targets, wrong))
    }

    /// What is there of the hosts and groups that are named.
    async fn enrolled(&self, asked: &[(usize, Asked)]) -> Result<Enrolled> {
        let hosts: Vec<Hostname> = asked
            .iter()
            .filter_map(|(_, asked)| if let Asked::Host(host) = asked { Some(host.clone()) } else { None })
            .collect();
        let groups: BTreeSet<&String> = asked
            .iter()
            .filter_map(|(_, asked)| if let Asked::Group(group) = asked { Some(group) } else { None })
            .collect();
        in_transaction!(self.store(), |tx| -> Result<Enrolled> {
            let mut enrolled = Enrolled::default();
            let found = self.hosts().candidates(tx, &hosts::Target::Nodes(hosts.clone())).await?;
            enrolled.hosts.extend(found.into_iter().map(|candidate| candidate.hostname));
            for group in &groups {
                let found = self.hosts().candidates(tx, &hosts::Target::Group((*group).clone())).await?;
                let found = found.into_iter().map(|candidate| candidate.hostname).collect();
                enrolled.groups.insert((*group).clone(), found);
            }
            Ok(enrolled)
        })
    }

    /// Whether a caller may deploy to these; what needs approval goes by agents alone.
    async fn admitted(&self, tx: &mut Tx, caller: &Caller, targets: &[Whom]) -> Result<()> {
        let (mut agents, mut bare) = (Vec::new(), Vec::new());
        for target in targets {
            match target {
                Whom::Ssh(_) if caller.groups.is_some() => {
                    let text = "this account may only deploy to the hosts of its groups";
                    return Err(Error::Forbidden(text.into()));
                }
                // An enrolled host that is reached another way is the same host to a rule.
                Whom::Ssh(login) => bare.extend(login.host.parse::<Hostname>().ok()),
                Whom::Agent(host) => agents.push(host.clone()),
            }
        }
        let mut candidates = self.hosts().candidates(tx, &hosts::Target::Nodes(agents)).await?;
        within(caller.groups.as_ref(), candidates.iter().map(|candidate| &candidate.group))?;
        candidates.extend(self.hosts().candidates(tx, &hosts::Target::Nodes(bare)).await?);
        let over_ssh = targets.iter().any(|target| matches!(target, Whom::Ssh(_)));
        if over_ssh && self.need(tx, &candidates).await?.is_some() {
            return Err(Error::Conflict(UNAPPROVED.into()));
        }
        Ok(())
    }

    /// What approval a deployment to these hosts needs. No job has the target `all`, so that a rule for that is about
    /// every job.
    pub(super) async fn need(&self, tx: &mut Tx, candidates: &[Candidate]) -> Result<Option<Need>> {
        self.approvals().needed(tx, Kind::Deploy, true, candidates).await
    }

    pub(super) async fn make(&self, by: &Author, caller: &Caller, plan: &Plan, new: &New) -> Result<i64> {
        let New { targets, credential, until, origin, ignored } = new;
        let made = in_transaction!(self.store(), |tx| -> Result<i64> {
            self.admitted(tx, caller, targets).await?;
            let id = store::next_id(tx).await?;
            let rows: Vec<_> = targets.iter().map(Whom::row).collect();
            let hosts: Vec<String> = rows.iter().map(|row| row.0.clone()).collect();
            let new = NewJob {
                account: &caller.name,
                plan,
                retry_of: origin.retry_of(),
                now: Micros::now(),
                targets: rows,
            };
            store::insert(tx, id, &new).await?;
            if let Some(text) = ignored {
                store::lock(tx, id, &[store::line(None, text.clone())]).await?;
            }
            let logins = targets.iter().filter_map(Whom::login).cloned().collect();
            let kept = Secrets { logins, credential: credential.clone() };
            store::put_secret(tx, id, secrets::seal(self.keys(), id, &kept)?, *until).await?;
            let object = model::shown(id);
            let note = Note::of(origin.action(), &object).new(json!({
                "git_repo": plan.git_repo,
                "git_branch": plan.git_branch,
                "dest_path": plan.dest_path,
                "run_mode": plan.run_mode,
                "options": plan.options,
                "hosts": hosts,
                "retry_of": origin.retry_of().map(model::shown),
            }));
            audit::note(tx, by, note).await?;
            Ok(id)
        })?;
        self.ring();
        Ok(made)
    }

    /// The same once more, as a new job.
    pub(super) async fn retry(&self, by: &Author, caller: &Caller, id: i64) -> Result<i64> {
        let (job, new) = self.finished(caller, id).await?;
        self.make(by, caller, &job.plan, &new).await
    }

    /// A job that is over, and what it takes to do the same again.
    pub(super) async fn finished(&self, caller: &Caller, id: i64) -> Result<(Job, New)> {
        let job = self.seen(caller, id).await?;
        allowed(caller, &job.plan)?;
        if !job.status.is_final() {
            return Err(Error::Conflict("the job is still under way".into()));
        }
        let before = self.targets(id).await?;
        let kept = store::secret(self.store(), id).await?.filter(|(_, until)| *until > Micros::now());
        let (Secrets { logins, credential }, until) = match kept {
            Some((sealed, until)) => (secrets::open(self.keys(), id, &sealed)?, until),
            // Agents need no log-in.
            None if job.plan.options.credential.is_none()
                && before.iter().all(|target| target.engine == Engine::Agent) =>
            {
                (Secrets::default(), Micros::now().plus_seconds(JOB_SECRETS_SECONDS))
            }
            None => {
                let text = "what the job logs in with is no longer kept; make a new job";
                return Err(Error::Conflict(text.into()));
            }
        };
        let mut logins = logins.into_iter();
        let mut targets = Vec::new();
        for target in before {
            targets.extend(match target.engine {
                Engine::Ssh => logins.next().map(Whom::Ssh),
                Engine::Agent => target.host.parse().ok().map(Whom::Agent),
            });
        }
        // What a job brought when nothing was known does not count any more, and is no reason to refuse it again.
        if targets.iter().any(|target| target.login().is_some())
            && let Some(why) = self.unsigned(&job.plan).await?
        {
            return Err(Error::Conflict(why.into()));
        }
        let origin = Origin::Retry(id);
        Ok((job, New { targets, credential, until, origin, ignored: None }))
    }

    /// Refuses what would go around the signatures that are known to be needed for a repository.
    async fn signed(&self, plan: &Plan, targets: &[Whom]) -> Result<()> {
        if self.repositories().known(&plan.git_repo).await?.allowed_signers.is_none() {
            return Ok(());
        }
        let mut wrong = Vec::new();
        if plan.options.allowed_signers.is_some() {
            let why = "the repository has a list of its own, and only that counts";
            wrong.push(("allowed_signers".to_owned(), why.to_owned()));
        }
        if targets.iter().any(|target| target.login().is_some()) {
            wrong.push(("targets".into(), UNSIGNED.into()));
        }
        if wrong.is_empty() { Ok(()) } else { Err(Error::InvalidFields(wrong)) }
    }

    /// Why a job that is about to begin may not go over SSH after all: rules and signers may have come, or hosts have been
    /// enrolled, while it waited for its turn.
    pub(super) async fn barred_over_ssh(
        &self,
        plan: &Plan,
        targets: &[Target],
    ) -> Result<Option<&'static str>> {
        if let Some(why) = self.unsigned(plan).await? {
            return Ok(Some(why));
        }
        let hosts: Vec<Hostname> = targets.iter().filter_map(|target| target.host.parse().ok()).collect();
        in_transaction!(self.store(), |tx| -> Result<Option<&'static str>> {
            let candidates = self.hosts().candidates(tx, &hosts::Target::Nodes(hosts.clone())).await?;
            Ok(self.need(tx, &candidates).await?.map(|_| UNAPPROVED))
        })
    }

    /// Why a repository can't be deployed over SSH, as it is known now.
    async fn unsigned(&self, plan: &Plan) -> Result<Option<&'static str>> {
        if repositories::strays(&plan.git_repo) {
            return Ok(Some(
                "the repository's address has a part . or .., so that nobody knows who must sign it",
            ));
        }
        let signers = self.repositories().known(&plan.git_repo).await?.allowed_signers;
        Ok(signers.map(|_| UNSIGNED))
    }
}

/// That these fields of a request did nothing, in Ansible's way. The document lets anything stand there, but a field that is
/// misspelt may have been to make the deployment more careful.
fn ignored(names: &str) -> String {
    format!("[WARNING]: ignored, because no such field is known: {}", printable(names))
}

/// Why what needs approval does not go over SSH.
const UNAPPROVED: &str = "deployments to some of these hosts need approval, and over SSH no host could check it: deploy by \
    agents alone";
/// Why what needs signatures does not.
const UNSIGNED: &str = "the repository needs signatures, which agents check and Ansible does not";

/// Enrolled hosts that a request names.
#[derive(Debug, Default)]
struct Enrolled {
    hosts: BTreeSet<Hostname>,
    /// By group.
    groups: BTreeMap<String, Vec<Hostname>>,
}

/// A job that is to be made, beside what it is to do.
#[derive(Debug)]
pub(super) struct New {
    pub(super) targets: Vec<Whom>,
    /// What opens this repository.
    credential: Option<(String, Credential)>,
    /// How long its secrets are kept.
    until: Micros,
    pub(super) origin: Origin,
    /// The first line of its log: what of the request nobody knew.
    ignored: Option<String>,
}

/// Where a job comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A request of its own.
    Request,
    /// The same once more.
    Retry(i64),
    /// Back to what was there before; the plan says to what.
    Rollback,
}

impl Origin {
    const fn retry_of(self) -> Option<i64> {
        match self {
            Self::Retry(id) => Some(id),
            Self::Request | Self::Rollback => None,
        }
    }

    const fn action(self) -> Action {
        match self {
            Self::Request => Action::JobRun,
            Self::Retry(_) => Action::JobRetry,
            Self::Rollback => Action::JobRollback,
        }
    }
}

/// Whom a job is for, once it is known.
#[derive(Debug)]
pub(super) enum Whom {
    /// A host over SSH.
    Ssh(Login),
    /// An enrolled host.
    Agent(Hostname),
}

impl Whom {
    /// As it is stored.
    pub(super) fn row(&self) -> (String, Option<u16>, Option<String>, Engine) {
        match self {
            Self::Ssh(l) => (l.host.clone(), Some(l.port), Some(l.username.clone()), Engine::Ssh),
            Self::Agent(host) => (host.to_string(), None, None, Engine::Agent),
        }
    }

    fn login(&self) -> Option<&Login> {
        match self {
            Self::Ssh(login) => Some(login),
            Self::Agent(_) => None,
        }
    }
}

/// Whether a caller may deploy this: a token may be limited to repositories and directories, and then it brings no
/// commands unless it says so.
///
/// # Errors
/// [`Error::Forbidden`].
pub(super) fn allowed(caller: &Caller, plan: &Plan) -> Result<()> {
    let Some(deploys) = &caller.deploys else { return Ok(()) };
    let refused = |text: String| Err(Error::Forbidden(text));
    if !of_repositories(deploys, &plan.git_repo) {
        return refused("this token may not deploy this repository".into());
    }
    if !at_paths(deploys, &plan.dest_path) {
        return refused(format!("this token may not deploy to {}", plan.dest_path));
    }
    match hook(plan) {
        Some(field) if !deploys.hooks => {
            refused(format!("this token may not deploy with `{field}`: its scope lacks `hooks`"))
        }
        _ => Ok(()),
    }
}

/// The field by which a deployment runs what its caller wants, or as whom, beside the repository's content.
fn hook(plan: &Plan) -> Option<&'static str> {
    let releases = plan.options.releases.as_ref();
    let command = |health: &Health| matches!(health.probe, Probe::Command(_));
    let all = [
        ("build", releases.is_some_and(|releases| !releases.build.is_empty())),
        ("activate", releases.is_some_and(|releases| !releases.activate.is_empty())),
        ("health", releases.and_then(|releases| releases.health.as_ref()).is_some_and(command)),
        ("filters", plan.options.filters),
        ("user", plan.options.user.is_some()),
    ];
    all.into_iter().find_map(|(field, given)| given.then_some(field))
}
