//! Rules: what needs the approval of how many others.

use axum::extract::State as With;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use signet_common::ids::is_group_name;
use signet_common::statement::Kind;
use signet_common::time::Micros;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::model::{Rule, RuleTarget};
use super::service::Approvals;
use super::store;
use crate::app::App;
use crate::audit::{self, Action, Note};
use crate::error::{Error, Result};
use crate::http::extract::{Author, Caller, Path};
use crate::http::known::Exact;
use crate::limits::{
    APPROVAL_RULES_MAX, APPROVAL_WAIT_SECONDS, APPROVAL_WAIT_SECONDS_MAX, APPROVALS_NEEDED_MAX,
};
use crate::store::in_transaction;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_rules, post_rule)).routes(routes!(delete_rule))
}

/// A rule, as it is shown.
#[derive(Debug, Serialize, ToSchema)]
struct RuleView {
    id: String,
    /// `"all"` or `{"group": "prod"}`
    target: RuleTarget,
    /// How many others must agree.
    approvals: u32,
    /// `command`, `deploy`
    #[schema(value_type = Vec<String>)]
    kinds: Vec<Kind>,
    /// Seconds in which they must.
    expires_in: u32,
}

impl From<Rule> for RuleView {
    fn from(rule: Rule) -> Self {
        let Rule { id, target, approvals, kinds, expires_in } = rule;
        Self { id, target, approvals, kinds, expires_in }
    }
}

/// A rule that is asked for.
#[derive(Debug, Deserialize, ToSchema)]
struct RuleBody {
    /// `"all"`: what is asked for with the target `all`. `{"group": "prod"}`: what is for any host of this group, however
    /// it was targeted.
    target: RuleTarget,
    /// How many others must agree, 1 to 10.
    approvals: i64,
    /// Only work of these kinds: `command`, `deploy`; both unless given.
    #[schema(value_type = Option<Vec<String>>)]
    kinds: Option<Vec<Kind>>,
    /// Seconds in which they must, 1 to 604,800; 3,600 unless given.
    expires_in: Option<i64>,
}

impl RuleBody {
    fn check(self) -> Result<Rule> {
        if let RuleTarget::Group(group) = &self.target
            && !is_group_name(group)
        {
            return Err(Error::invalid("target", "target: not the name of a group"));
        }
        let mut kinds = self.kinds.unwrap_or_else(|| vec![Kind::Command, Kind::Deploy]);
        kinds.dedup();
        if kinds.is_empty() || kinds.len() > 2 {
            return Err(Error::invalid("kinds", "kinds must name command, deploy or both"));
        }
        let wait = self.expires_in.unwrap_or(i64::from(APPROVAL_WAIT_SECONDS));
        Ok(Rule {
            id: Uuid::now_v7().to_string(),
            target: self.target,
            approvals: whole("approvals", self.approvals, APPROVALS_NEEDED_MAX)?,
            kinds,
            expires_in: whole("expires_in", wait, APPROVAL_WAIT_SECONDS_MAX)?,
        })
    }
}

/// As the trail shows it.
fn noted(rule: &Rule) -> Value {
    json!({
        "target": rule.target, "approvals": rule.approvals, "kinds": rule.kinds, "expires_in": rule.expires_in,
    })
}

fn whole(field: &str, value: i64, max: u32) -> Result<u32> {
    let found = u32::try_from(value).ok().filter(|n| (1..=max).contains(n));
    found.ok_or_else(|| Error::invalid(field, format!("{field} must be between 1 and {max}")))
}

/// Every rule, oldest first. Of those that match the one that asks for the most approvals counts.
#[utoipa::path(get, path = "/api/approval-rules", tag = "approvals",
    responses((status = 200, body = Vec<RuleView>)))]
async fn list_rules(With(app): With<App>) -> Result<axum::Json<Vec<RuleView>>> {
    let rules = store::rules(app.approvals.store()).await?;
    Ok(axum::Json(rules.into_iter().map(RuleView::from).collect()))
}

/// Makes a rule. It counts for what is asked for from now on.
#[utoipa::path(post, path = "/api/approval-rules", tag = "approvals", request_body = RuleBody,
    responses((status = 201, body = RuleView), (status = 400), (status = 409)))]
async fn post_rule(
    With(app): With<App>,
    caller: Caller,
    by: Author,
    Exact(body): Exact<RuleBody>,
) -> Result<(StatusCode, axum::Json<RuleView>)> {
    let rule = body.check()?;
    app.approvals.make_rule(&caller, &by, &rule).await?;
    tracing::warn!(rule = ?rule, by = %caller, "a rule for approvals was made");
    Ok((StatusCode::CREATED, axum::Json(rule.into())))
}

/// Deletes a rule. What it holds already stays held.
#[utoipa::path(delete, path = "/api/approval-rules/{id}", tag = "approvals", params(("id" = String, Path)),
    responses((status = 204), (status = 404)))]
async fn delete_rule(
    With(app): With<App>,
    caller: Caller,
    by: Author,
    Path(id): Path<String>,
) -> Result<StatusCode> {
    app.approvals.delete_rule(&by, &id).await?;
    tracing::warn!(rule = %id, by = %caller, "a rule for approvals was deleted");
    Ok(StatusCode::NO_CONTENT)
}

impl Approvals {
    async fn make_rule(&self, caller: &Caller, by: &Author, rule: &Rule) -> Result<()> {
        let now = Micros::now();
        in_transaction!(self.store(), |tx| -> Result<()> {
            if store::rules(&mut *tx).await?.len() >= APPROVAL_RULES_MAX {
                return Err(Error::Conflict(format!("there are at most {APPROVAL_RULES_MAX} rules")));
            }
            store::insert_rule(tx, rule, &caller.name, now).await?;
            let note = Note::of(Action::ApprovalRuleMake, &rule.id).new(noted(rule));
            Ok(audit::note(tx, by, note).await?)
        })
    }

    async fn delete_rule(&self, by: &Author, id: &str) -> Result<()> {
        in_transaction!(self.store(), |tx| -> Result<()> {
            let rules = store::rules(&mut *tx).await?;
            match rules.iter().find(|rule| rule.id == id) {
                Some(rule) if store::delete_rule(tx, id).await? => {
                    let note = Note::of(Action::ApprovalRuleDelete, id).old(noted(rule));
                    Ok(audit::note(tx, by, note).await?)
                }
                _ => Err(Error::NotFound("Rule not found".into())),
            }
        })
    }
}
