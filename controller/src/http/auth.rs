//! Which credential a request shows. Who is behind it, the accounts know.

use axum::extract::FromRequestParts;
use http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, Method, Uri};

pub use crate::accounts::{Caller, Role};

use crate::accounts::Credential;
use crate::error::Error;
use crate::limits::TOKEN_BYTES_MAX;

/// The console's cookie.
pub const SESSION_COOKIE: &str = "signet_session";

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        parts.extensions.get::<Self>().cloned().ok_or(Error::Unauthenticated)
    }
}

/// The one credential that a request shows: a token in a header before the cookie, and where a route takes one, a ticket
/// in the query.
///
/// # Errors
/// [`Error::Unauthenticated`] for none; [`Error::Forbidden`] for a cookie that another site made the browser send.
pub fn credential<'a>(
    method: &Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
    tickets: bool,
) -> Result<Credential<'a>, Error> {
    if headers.contains_key(AUTHORIZATION) || headers.contains_key("x-api-key") {
        return bearer(headers).map(Credential::Token).ok_or(Error::Unauthenticated);
    }
    if let Some(ticket) = tickets.then(|| ticket(uri)).flatten() {
        return Ok(Credential::Ticket(ticket));
    }
    let cookie = cookie(headers).filter(|c| c.len() <= TOKEN_BYTES_MAX).ok_or(Error::Unauthenticated)?;
    if ![Method::GET, Method::HEAD].contains(method) {
        guard_origin(headers)?;
    }
    Ok(Credential::Cookie(cookie))
}

/// The token in `Authorization: Bearer` or in `X-API-Key`.
#[must_use]
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let token = match headers.get(AUTHORIZATION) {
        Some(value) => {
            let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())?
        }
        None => headers.get("x-api-key")?.to_str().ok()?.trim(),
    };
    (token.len() <= TOKEN_BYTES_MAX).then_some(token)
}

fn ticket(uri: &Uri) -> Option<&str> {
    let ticket = uri.query()?.split('&').find_map(|pair| pair.strip_prefix("ticket="))?;
    (ticket.len() <= TOKEN_BYTES_MAX).then_some(ticket)
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(';')).find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == SESSION_COOKIE && !value.is_empty()).then_some(value)
    })
}

/// Refuses what another site made a browser send. Browsers say where a request comes from in `Sec-Fetch-Site` (Fetch
/// Metadata), older ones in `Origin` (RFC 6454); who says neither is no browser, and has no cookie to send.
///
/// # Errors
/// [`Error::Forbidden`].
pub fn guard_origin(headers: &HeaderMap) -> Result<(), Error> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let same = match (text("sec-fetch-site"), text(ORIGIN.as_str())) {
        (Some(site), _) => site == "same-origin",
        (None, Some(origin)) => {
            let origin_host = origin.split_once("://").map(|(_, host)| host);
            origin_host.is_some() && origin_host == text(HOST.as_str())
        }
        (None, None) => false,
    };
    if same { Ok(()) } else { Err(Error::Forbidden("this request comes from another site".into())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn shown(
        method: Method,
        uri: &str,
        pairs: &[(&'static str, &str)],
        tickets: bool,
    ) -> Result<String, Error> {
        let (uri, headers) = (uri.parse().unwrap(), headers(pairs));
        credential(&method, &uri, &headers, tickets).map(|found| format!("{found:?}"))
    }

    #[test]
    fn one_credential_is_found() {
        let get = |pairs: &[(&'static str, &str)]| shown(Method::GET, "/x", pairs, false);
        assert_eq!(get(&[("authorization", "Bearer a")]).unwrap(), "Token(\"a\")");
        assert_eq!(get(&[("authorization", "bearer  a")]).unwrap(), "Token(\"a\")");
        assert_eq!(get(&[("x-api-key", "a")]).unwrap(), "Token(\"a\")");
        assert_eq!(get(&[("cookie", "b=1; signet_session=c")]).unwrap(), "Cookie(\"c\")");
        // A header that was meant counts, also when it is wrong.
        assert!(get(&[("authorization", "Basic a"), ("cookie", "signet_session=c")]).is_err());
        assert!(get(&[("authorization", "a")]).is_err());
        assert!(get(&[]).is_err());
        assert_eq!(shown(Method::GET, "/x?a=b&ticket=t", &[], true).unwrap(), "Ticket(\"t\")");
        assert!(shown(Method::GET, "/x?ticket=t", &[], false).is_err());
    }

    #[test]
    fn a_cookie_changes_something_only_from_our_own_pages() {
        let post = |pairs: &[(&'static str, &str)]| {
            let cookie = [("cookie", "signet_session=c"), ("host", "fleet.example")];
            shown(Method::POST, "/x", &[&cookie[..], pairs].concat(), false).is_ok()
        };
        assert!(post(&[("sec-fetch-site", "same-origin")]));
        assert!(post(&[("origin", "https://fleet.example")]));
        for wrong in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "none")],
            &[("sec-fetch-site", "cross-site"), ("origin", "https://fleet.example")],
            &[("origin", "https://evil.example")],
            &[("origin", "null")],
            &[("origin", "https://fleet.example.evil")],
            &[],
        ] {
            assert!(!post(wrong), "{wrong:?}");
        }
    }
}
