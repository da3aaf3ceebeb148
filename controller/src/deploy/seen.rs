//! Which jobs a caller may see. Who may read sees every job; a token that is limited to repositories is in a pipeline's
//! hands, and sees only what it could have asked for: of its repositories, to its paths, on hosts of its groups alone.

use std::collections::BTreeSet;

use super::model::Job;
use super::service::{Jobs, unknown};
use super::store::{self, Filter, Within};
use crate::accounts::Deploys;
use crate::error::{Error, Result};
use crate::hosts;
use crate::http::extract::Caller;
use crate::repositories;
use crate::store::in_transaction;

/// Whether this repository is one of those that a token is limited to.
pub(super) fn of_repositories(deploys: &Deploys, git_repo: &str) -> bool {
    deploys.repositories.iter().any(|one| repositories::same(one, git_repo))
}

/// Whether this path is one of those that it is limited to, or lies below one.
pub(super) fn at_paths(deploys: &Deploys, dest_path: &str) -> bool {
    let holds = |dir: &String| {
        dest_path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    deploys.paths.as_ref().is_none_or(|all| all.iter().any(holds))
}

impl Jobs {
    /// The job, or 404: also for who may not see it.
    pub(super) async fn seen(&self, caller: &Caller, id: i64) -> Result<Job> {
        let job = self.job(id).await?;
        let Some(deploys) = &caller.deploys else { return Ok(job) };
        if !of_repositories(deploys, &job.plan.git_repo) || !at_paths(deploys, &job.plan.dest_path) {
            return Err(unknown());
        }
        let touchable =
            in_transaction!(self.store(), |tx| -> Result<()> { self.touchable(tx, caller, id).await });
        match touchable {
            Ok(()) => Ok(job),
            Err(Error::Forbidden(_)) => Err(unknown()),
            Err(error) => Err(error),
        }
    }

    /// A page of the jobs that a caller may see, newest first, and how many there are in all.
    pub(super) async fn list(
        &self,
        caller: &Caller,
        filter: Filter,
        limit: usize,
        offset: usize,
    ) -> Result<(Vec<Job>, i64)> {
        let within = match &caller.deploys {
            Some(deploys) => Some(self.within(deploys, caller.groups.as_ref()).await?),
            None => None,
        };
        Ok(store::list(self.store(), filter, within.as_ref(), limit, offset).await?)
    }

    /// What [`Jobs::seen`] lets through, in what a statement can compare: as it is written in the jobs that there are.
    async fn within(&self, deploys: &Deploys, groups: Option<&BTreeSet<String>>) -> Result<Within> {
        let mut repositories = store::repositories(self.store()).await?;
        repositories.retain(|one| of_repositories(deploys, one));
        let mut paths = store::paths(self.store(), &repositories).await?;
        paths.retain(|one| at_paths(deploys, one));
        let Some(groups) = groups else { return Ok(Within { repositories, paths, hosts: None }) };
        let hosts = in_transaction!(self.store(), |tx| -> Result<Vec<String>> {
            let mut hosts = Vec::new();
            for group in groups {
                let found = self.hosts().candidates(tx, &hosts::Target::Group(group.clone())).await?;
                hosts.extend(found.into_iter().map(|host| host.hostname.to_string()));
            }
            Ok(hosts)
        })?;
        Ok(Within { repositories, paths, hosts: Some(hosts) })
    }
}
