//! What stands before every handler, in the fixed order: rate, path, method, credential, right.

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::auth::credential;
use super::dialect::Surface;
use super::edge::Peer;
use super::permissions::{Need, Rule, rule};
use crate::accounts::{Caller, Way};
use crate::app::App;
use crate::audit::{Author, RequestId};
use crate::error::Error;

pub(super) async fn guard(
    State(app): State<App>,
    path: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Result<Response, Error> {
    let peer = request.extensions().get::<Peer>().copied();
    // First of all, so that who asks too much costs least, whatever it asks for.
    if let Some(Err(error)) = peer.map(|peer| app.rates.address(peer.ip)) {
        return Ok(told(error.into_response(), path, author(&request)));
    }
    let path = path.ok_or_else(|| Error::NotFound("Not Found".into()))?;
    let need = match rule(request.method(), path.as_str()) {
        Rule::Needs(need) => need,
        Rule::OtherMethods(allow) => return Err(Error::MethodNotAllowed(allow)),
        Rule::Unknown => return Err(Error::NotFound("Not Found".into())),
    };
    let mut author = author(&request);
    let response = match admitted(&app, need, &mut request, &mut author).await {
        Ok(()) => {
            request.extensions_mut().insert(author.clone());
            next.run(request).await
        }
        Err(error) => error.into_response(),
    };
    Ok(told(response, Some(path), author))
}

/// Whether a limited caller asks for what its limits have no say in.
fn beyond(caller: &Caller, need: Need, surface: &str) -> bool {
    match need {
        // Who is limited to some hosts changes nothing that all depend on, nor moves hosts into those groups.
        Need::Admin => caller.is_limited(),
        // Repositories limit jobs, and no command.
        Need::Operate => caller.deploys.is_some() && surface != Surface::Jobs.name(),
        Need::Static | Need::Public | Need::LoopbackOrRead | Need::Own | Need::Read | Need::Watch => false,
    }
}

/// Tells the outermost layer who was answered, and what was asked for.
fn told(mut response: Response, path: Option<MatchedPath>, author: Author) -> Response {
    if let Some(path) = path {
        response.extensions_mut().insert(path);
    }
    response.extensions_mut().insert(author);
    response
}

/// Who asks, before a credential was looked at.
fn author(request: &Request) -> Author {
    let extensions = request.extensions();
    Author {
        who: "nobody".into(),
        via: None,
        from: extensions.get::<Peer>().map(|peer| peer.ip),
        request: extensions.get::<RequestId>().map(|id| id.0.clone()),
    }
}

/// Lets the request in, with who is behind it.
async fn admitted(app: &App, need: Need, request: &mut Request, author: &mut Author) -> Result<(), Error> {
    let peer = request.extensions().get::<Peer>().copied();
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
        caller.name.clone_into(&mut author.who);
        author.via = Some(caller.via.to_string());
        app.rates.caller(&caller.via)?;
        if beyond(&caller, need, surface) || !need.allows(caller.role) {
            return Err(Error::Forbidden("this account may not do that".into()));
        }
        request.extensions_mut().insert(caller);
    }
    if need.needs_store() {
        app.ready.check()?;
    }
    Ok(())
}
