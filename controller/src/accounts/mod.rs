//! Accounts: users and their roles, log-ins, tokens, and who is behind a request. Two documents show the same record:
//! `pipelines` (001) and `clusters` (003).

mod api_tokens;
mod attempts;
mod clusters;
mod login;
pub mod model;
mod passwords;
mod pipelines;
mod routes;
mod service;
mod store;
mod tokens;
mod who;

use utoipa_axum::router::OpenApiRouter;

pub use login::LoggedIn;
pub use model::{Caller, Deploys, Role, Scope, Via, within};
pub use passwords::CHECKS as PASSWORD_CHECKS;
pub use service::{Accounts, FIRST_PASSWORD_FILE, by_a_person};
pub use store::ALL as STATEMENTS;
pub use who::{Credential, Way};

use crate::app::App;

/// The slice's routes, of all its surfaces.
#[must_use]
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().merge(pipelines::routes()).merge(clusters::routes()).merge(routes::routes())
}
