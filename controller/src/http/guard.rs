//! What stands before every handler, in the fixed order: path, method, credential, right.

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::edge::Peer;
use super::permissions::{Need, Rule, rule};
use crate::app::App;
use crate::error::Error;

pub(super) async fn guard(
    State(app): State<App>,
    path: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Result<Response, Error> {
    let path = path.ok_or_else(|| Error::NotFound("Not Found".into()))?;
    let need = match rule(request.method(), path.as_str()) {
        Rule::Needs(need) => need,
        Rule::OtherMethods(allow) => return Err(Error::MethodNotAllowed(allow)),
        Rule::Unknown => return Err(Error::NotFound("Not Found".into())),
    };
    let from_loopback = request.extensions().get::<Peer>().is_some_and(|peer| peer.loopback);
    let open = match need {
        Need::Static | Need::Public => true,
        Need::LoopbackOrRead => from_loopback,
        Need::Read | Need::Operate | Need::Admin => false,
    };
    if !open {
        let caller = app.credentials.check(request.headers())?;
        if !need.allows(caller.role) {
            return Err(Error::Forbidden("this account may not do that".into()));
        }
        request.extensions_mut().insert(caller);
    }
    if need.needs_store() {
        app.ready.check()?;
    }
    let mut response = next.run(request).await;
    response.extensions_mut().insert(path);
    Ok(response)
}
