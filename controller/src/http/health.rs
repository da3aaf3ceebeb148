//! Whether the controller works: it does while the store answers.

use std::time::Duration;

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::docs::Detail;
use crate::app::App;
use crate::error::Error;
use crate::limits::{HEALTH_SECONDS_MAX, RETRY_AFTER_SECONDS};

#[derive(Serialize, ToSchema)]
struct Health {
    /// `ok`
    #[schema(example = "ok")]
    status: &'static str,
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(health))
}

/// Health
///
/// 200 while the database answers, whatever the broker does.
#[utoipa::path(get, path = "/api/health", tag = "health", security(()), responses(
    (status = 200, body = Health), (status = 503, body = Detail)))]
async fn health(State(app): State<App>) -> Result<axum::Json<Health>, Error> {
    app.ready.check()?;
    let answer = tokio::time::timeout(Duration::from_secs(HEALTH_SECONDS_MAX), app.store.ping()).await;
    match answer {
        Ok(Ok(())) => Ok(axum::Json(Health { status: "ok" })),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Error::Unavailable {
            message: "the database does not answer".into(),
            retry_after: RETRY_AFTER_SECONDS,
        }),
    }
}
