//! What stands before every handler, in the fixed order: rate, path, method, credential, right.

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::auth::credential;
use super::dialect::Surface;
use super::edge::Peer;
use super::permissions::{Need, Rule, rule};
use crate::accounts::Way;
use crate::app::App;
use crate::error::Error;

pub(super) async fn guard(
    State(app): State<App>,
    path: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Result<Response, Error> {
    let peer = request.extensions().get::<Peer>().copied();
    // First of all, so that who asks too much costs least, whatever it asks for.
    if let Some(peer) = peer {
        app.rates.address(peer.ip)?;
    }
    let path = path.ok_or_else(|| Error::NotFound("Not Found".into()))?;
    let need = match rule(request.method(), path.as_str()) {
        Rule::Needs(need) => need,
        Rule::OtherMethods(allow) => return Err(Error::MethodNotAllowed(allow)),
        Rule::Unknown => return Err(Error::NotFound("Not Found".into())),
    };
    let open = match need {
        Need::Static | Need::Public => true,
        Need::LoopbackOrRead => peer.is_some_and(|peer| peer.loopback),
        Need::Own | Need::Read | Need::Watch | Need::Operate | Need::Admin => false,
    };
    if !open {
        let shown = credential(request.method(), request.uri(), request.headers(), need == Need::Watch)?;
        let peer = peer.ok_or_else(|| Error::Internal("the request has no peer".into()))?;
        let surface = Surface::of(request.uri().path()).name();
        let caller = app.accounts.caller(shown, Way { peer: peer.ip, surface }).await?;
        app.rates.caller(&caller.via)?;
        // Who is limited to some hosts changes nothing that all depend on, nor moves hosts into those groups.
        let limited = need == Need::Admin && caller.groups.is_some();
        if limited || !need.allows(caller.role) {
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
