//! The HTTP server: listeners, who may do what, the error dialects, and the interface's own description.

pub mod auth;
pub mod dialect;
mod discard;
pub mod docs;
mod edge;
pub mod extract;
mod guard;
mod health;
pub mod known;
pub mod list;
pub mod metrics;
pub mod paging;
pub mod permissions;
mod proxies;
pub mod rates;
pub mod server;

use axum::extract::DefaultBodyLimit;
use axum::{Router, middleware};
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;
use crate::error::Error;
use crate::limits::BODY_BYTES_MAX;

/// Every documented route of every slice.
#[must_use]
pub fn documented() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(docs::description())
        .merge(health::routes())
        .merge(metrics::routes())
        .merge(crate::hosts::routes())
        .merge(crate::commands::routes())
        .merge(crate::approvals::routes())
        .merge(crate::repositories::routes())
        .merge(crate::deploy::routes())
        .merge(crate::accounts::routes())
        .merge(crate::audit::routes())
}

/// Everything that is served: the documented routes, the pages that show them, and what stands before each of them.
pub fn router(app: App) -> Router {
    let (routes, mut document) = documented().split_for_parts();
    docs::complete(&mut document);
    routes
        .merge(docs::pages(&document))
        .fallback(async || Error::NotFound("Not Found".into()))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(app.clone(), guard::guard))
        .with_state(app)
}
