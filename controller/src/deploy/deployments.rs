//! `GET /api/deployments`: how deployed paths stand, and which of them are not what was deployed.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::Uri;
use serde::{Deserialize, Serialize};
use signet_common::time::Micros;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::seen::{at_paths, of_repositories};
use super::store::LastJob;
use super::{model, store};
use crate::app::App;
use crate::error::{Error, Result};
use crate::hosts::{Deployment, DeploymentFilter};
use crate::http::extract::{Caller, Query};
use crate::http::list::{link_next, page_limit};
use crate::limits::{DEPLOYMENTS_PAGE, DEPLOYMENTS_PAGE_MAX};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_deployments))
}

#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct DeploymentsQuery {
    /// Only of this host.
    hostname: Option<String>,
    /// Only of the hosts of this group.
    group: Option<String>,
    /// Only this path.
    path: Option<String>,
    /// `true`: only what is not what was deployed; `false`: only what is.
    drifted: Option<bool>,
    /// Rows on a page; 100 unless given, 200 at most. For a token that is limited to repositories a page may hold fewer although
    /// there is a next one.
    limit: Option<u32>,
    /// From the `Link` of the page before.
    cursor: Option<String>,
}

/// A deployed path of a host with an agent.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct DeploymentView {
    /// The host.
    hostname: String,
    /// Its group.
    group: String,
    /// The path.
    path: String,
    /// The commit that was deployed last.
    deployed: String,
    /// The commit on which it stands; null when there is nothing readable.
    commit: Option<String>,
    /// Whether files were changed by hand.
    edited: bool,
    /// Whether it is not what was deployed: on another commit, edited, or not readable.
    drifted: bool,
    /// When the agent said so last; UTC.
    seen_at: String,
    /// The newest job that deployed there, of those that are kept.
    job_id: Option<String>,
    /// The commit that this job wanted.
    wanted: Option<String>,
}

/// How deployed paths stand, by host: what agents say of them.
#[utoipa::path(get, path = "/api/deployments", tag = "jobs", params(DeploymentsQuery),
    responses((status = 200, body = Vec<DeploymentView>), (status = 400)))]
async fn list_deployments(
    State(app): State<App>,
    caller: Caller,
    uri: Uri,
    Query(query): Query<DeploymentsQuery>,
) -> Result<Response> {
    let limit = page_limit(query.limit, DEPLOYMENTS_PAGE, DEPLOYMENTS_PAGE_MAX)?;
    let after = match query.cursor.as_deref() {
        None => ("", ""),
        Some(text) => {
            text.split_once(':').ok_or_else(|| Error::invalid("cursor", "cursor is not one of this list"))?
        }
    };
    let filter = DeploymentFilter {
        hostname: query.hostname.clone(),
        group: query.group.clone(),
        path: query.path.clone(),
        drifted: query.drifted,
    };
    let mut rows = app.hosts.deployments(&filter, after, limit + 1).await?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|last| format!("{}:{}", last.hostname, last.place));
    let hosts: BTreeSet<&str> = rows.iter().map(|row| row.hostname.as_str()).collect();
    let paths: BTreeSet<&str> = rows.iter().map(|row| row.path.as_str()).collect();
    let mut last = store::last_at(app.jobs.store(), hosts, paths).await?;
    let mut job = |row: &Deployment| last.remove(&(row.hostname.clone(), row.path.clone()));
    let found =
        rows.into_iter().map(|row| (job(&row), row)).filter(|(job, row)| seen(&caller, row, job.as_ref()));
    let views: Vec<_> = found.map(|(job, row)| view(row, job)).collect();
    let mut response = axum::Json(views).into_response();
    if let Some(next) = next {
        link_next(&mut response, &uri, &next);
    }
    Ok(response)
}

/// Whether a caller may see this: who is limited to repositories must know from the job that it is one of them.
fn seen(caller: &Caller, row: &Deployment, job: Option<&LastJob>) -> bool {
    let Some(deploys) = &caller.deploys else { return true };
    job.is_some_and(|job| of_repositories(deploys, &job.git_repo))
        && at_paths(deploys, &row.path)
        && caller.groups.as_ref().is_none_or(|groups| groups.contains(&row.grp))
}

fn view(row: Deployment, job: Option<LastJob>) -> DeploymentView {
    let (job_id, wanted) = job.map_or((None, None), |job| (Some(model::shown(job.id)), job.commit));
    DeploymentView {
        hostname: row.hostname,
        group: row.grp,
        path: row.path,
        deployed: row.deployed,
        commit: row.commit_id,
        edited: row.edited != 0,
        drifted: row.drifted != 0,
        seen_at: Micros(row.received_at).rfc3339(),
        job_id,
        wanted,
    }
}
