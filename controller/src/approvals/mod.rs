//! Approvals: who must agree before something runs.
//!
//! Rules hold a task when it is asked for. What is agreed to is a [statement](signet_common::statement) of everything
//! that will happen, made at the request, and its exact bytes are what is sent in the end: hosts that list approvers of
//! their own compare every field with them and believe nobody else.

mod keys;
mod message;
mod model;
mod routes;
mod rules;
mod service;
mod store;
mod view;

use signet_common::TaskId;
use utoipa_axum::router::OpenApiRouter;

pub use message::{Holder, Seal, Work};
pub use model::{Need, Rule, RuleTarget, State};
pub use service::{Approvals, Asked};
pub use store::ALL as STATEMENTS;
pub use view::ApprovalView;

use crate::app::App;
use crate::error::Result;
use crate::store::Tx;

/// The slice's routes.
#[must_use]
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().merge(routes::routes()).merge(rules::routes()).merge(keys::routes())
}

/// Forgets what belongs to tasks that are past their retention.
///
/// # Errors
/// When the database fails.
pub async fn forget(tx: &mut Tx, tasks: &[TaskId]) -> Result<()> {
    Ok(store::delete(tx, tasks).await?)
}
