//! The controller over HTTP. Everything blocks.

use std::io::Read;
use std::net::IpAddr;
use std::sync::Arc;
use std::{fmt, thread};

use serde::de::DeserializeOwned;
use serde_json::Value;
use signet_agent::http::{provide_cryptography, root_certs};
use ureq::http::{HeaderMap, Method, Request, Response, Uri};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body, Proxy};

use crate::limits::{
    ANSWER_BYTES_MAX, ANSWER_TIMEOUT, CONNECT_TIMEOUT, RECONNECT_FIRST, SEND_TRIES_MAX, STREAM_SILENCE_MAX,
};

/// Why the controller did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ClientError {
    /// The address is no address.
    #[error("the controller's address {0:?} is not an http or https URL (--url, SIGNET_URL)")]
    Url(String),
    /// Nobody answers there.
    #[error("the controller at {url} can't be reached: {why}")]
    Unreachable {
        /// The address.
        url: String,
        /// What the system says.
        why: String,
    },
    /// It said no.
    #[error("{}", refusal(*.status, .detail, .fields))]
    Refused {
        /// The status.
        status: u16,
        /// Its `detail`.
        detail: String,
        /// Where the API says it by field: each one that is wrong, and why.
        fields: Vec<(String, String)>,
    },
    /// It answered something that this program doesn't know.
    #[error("the controller's answer makes no sense: {0}")]
    Malformed(String),
}

fn refusal(status: u16, detail: &str, fields: &[(String, String)]) -> String {
    let fields: Vec<String> = fields.iter().map(|(field, why)| format!("{field}: {why}")).collect();
    let detail = if fields.is_empty() { detail } else { &fields.join("; ") };
    let hint = match status {
        401 => {
            ": give --token, SIGNET_TOKEN or SIGNET_TOKEN_FILE (`signet up` leaves one in admin.token of its data directory)"
        }
        _ => "",
    };
    format!("the controller says: {detail} ({status}){hint}")
}

impl ClientError {
    /// Whether the same request may work in a moment.
    pub(crate) fn passes(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => matches!(status, 429 | 500..=599),
            Self::Url(_) | Self::Malformed(_) => false,
        }
    }

    /// Whether there is no such thing.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }
}

/// An API token. Never printed.
#[derive(Clone)]
pub(crate) struct Token(String);

impl Token {
    /// Keeps a token out of every message.
    pub(crate) fn new(text: &str) -> Self {
        Self(text.trim().to_owned())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// A controller, and who asks it. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    base: String,
    token: Option<Token>,
    agent: Agent,
    streams: Agent,
}

impl Client {
    /// Checks the address; connects with the first request.
    ///
    /// # Errors
    /// [`ClientError::Url`].
    pub(crate) fn new(url: &str, token: Option<Token>) -> Result<Self, ClientError> {
        let uri = address(url)?;
        provide_cryptography();
        // Hundreds of files: read only where they are needed.
        let roots = if uri.scheme_str() == Some("https") { root_certs() } else { RootCerts::WebPki };
        let tls = TlsConfig::builder().root_certs(roots).build();
        // A proxy that the environment names reaches another loopback than ours, and would see the token.
        let proxy = if is_loopback(&uri) { None } else { Proxy::try_from_env() };
        let config = || {
            Agent::config_builder()
                .tls_config(tls.clone())
                .proxy(proxy.clone())
                .http_status_as_error(false)
                // A redirect could carry the token elsewhere.
                .max_redirects(0)
                .max_redirects_will_error(false)
                .timeout_connect(Some(CONNECT_TIMEOUT))
                .user_agent(concat!("signet/", env!("CARGO_PKG_VERSION")))
        };
        let agent = config().timeout_per_read(Some(ANSWER_TIMEOUT)).build().new_agent();
        let streams = config().timeout_per_read(Some(STREAM_SILENCE_MAX)).build().new_agent();
        let base = url.trim_end_matches('/').to_owned();
        Ok(Self { inner: Arc::new(Inner { base, token, agent, streams }) })
    }

    fn unreachable(&self, error: &ureq::Error) -> ClientError {
        let why = match error {
            ureq::Error::Io(error) => error.to_string(),
            other => other.to_string(),
        };
        ClientError::Unreachable { url: self.inner.base.clone(), why }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Request<Vec<u8>>, ClientError> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.inner.base));
        if let Some(token) = &self.inner.token {
            request = request.header("authorization", format!("Bearer {}", token.0));
        }
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request
            .body(body.to_vec())
            .map_err(|e| ClientError::Malformed(format!("this request can't be sent: {e}")))
    }

    fn call(&self, agent: &Agent, request: Request<Vec<u8>>) -> Result<Response<Body>, ClientError> {
        let mut response = agent.run(request).map_err(|e| self.unreachable(&e))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text =
            response.body_mut().with_config().limit(ANSWER_BYTES_MAX).lossy_utf8(true).read_to_string();
        let text = text.map_err(|e| self.unreachable(&e))?;
        let detail = serde_json::from_str::<Value>(&text).ok();
        // The jobs surface has its own form: a message, and what is wrong with each field.
        let said = detail.as_ref().and_then(|v| v["detail"].as_str().or(v["error"]["message"].as_str()));
        let fields = detail.as_ref().and_then(|v| v["error"]["details"].as_object()).into_iter().flatten();
        let why = |why: &Value| why.as_str().unwrap_or_default().to_owned();
        Err(ClientError::Refused {
            status: status.as_u16(),
            detail: said.or(status.canonical_reason()).unwrap_or("no explanation").to_owned(),
            fields: fields.map(|(field, text)| (field.clone(), why(text))).collect(),
        })
    }

    fn read(&self, mut response: Response<Body>) -> Result<(HeaderMap, Value), ClientError> {
        let bytes = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let bytes = bytes.map_err(|e| self.unreachable(&e))?;
        let value = if bytes.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&bytes) };
        let value = value.map_err(|e| ClientError::Malformed(e.to_string()))?;
        Ok((std::mem::take(response.headers_mut()), value))
    }

    /// `GET`, the API's own JSON.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) fn get(&self, path: &str) -> Result<Value, ClientError> {
        let request = self.request(Method::GET, path, &[], &[])?;
        Ok(self.read(self.call(&self.inner.agent, request)?)?.1)
    }

    /// `GET` of a list, page by page, until `each` has enough of it (it says `false`).
    ///
    /// # Errors
    /// [`ClientError`], or what `each` says.
    pub(crate) fn list<E: From<ClientError>>(
        &self,
        path: &str,
        mut each: impl FnMut(Value) -> Result<bool, E>,
    ) -> Result<(), E> {
        let mut next = Some(path.to_owned());
        while let Some(path) = next {
            let request = self.request(Method::GET, &path, &[], &[])?;
            let (headers, page) = self.read(self.call(&self.inner.agent, request)?)?;
            let Value::Array(rows) = page else {
                return Err(ClientError::Malformed("not a list".into()).into());
            };
            for row in rows {
                if !each(row)? {
                    return Ok(());
                }
            }
            next = headers.get("link").and_then(|v| v.to_str().ok()).and_then(next_page);
        }
        Ok(())
    }

    /// `POST`, `PUT` or `DELETE` with JSON. A request that may be repeated (it carries its own key, or does the same
    /// again) is sent again when its connection breaks.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) fn send(
        &self,
        method: &Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut tries = 0;
        loop {
            tries += 1;
            let request = self.request(method.clone(), path, headers, body.as_bytes())?;
            match self.call(&self.inner.agent, request) {
                Ok(response) => return Ok(self.read(response)?.1),
                Err(error) if error.passes() && tries < SEND_TRIES_MAX => {
                    thread::sleep(RECONNECT_FIRST * tries)
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// As [`Client::send`], for what must not be done twice: a broken connection is told, and nothing is sent again.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) fn send_once(&self, method: &Method, path: &str, body: &Value) -> Result<Value, ClientError> {
        let request = self.request(method.clone(), path, &[], body.to_string().as_bytes())?;
        Ok(self.read(self.call(&self.inner.agent, request)?)?.1)
    }

    /// Opens a stream of server-sent events.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) fn events(&self, path: &str, last_event_id: &str) -> Result<impl Read + use<>, ClientError> {
        let mut headers = vec![("accept", "text/event-stream")];
        if !last_event_id.is_empty() {
            headers.push(("last-event-id", last_event_id));
        }
        let request = self.request(Method::GET, path, &headers, &[])?;
        Ok(self.call(&self.inner.streams, request)?.into_body().into_reader())
    }

    /// `GET` of a text; nothing when there is none here.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) fn text(&self, path: &str) -> Result<Option<String>, ClientError> {
        let request = self.request(Method::GET, path, &[], &[])?;
        match self.call(&self.inner.agent, request) {
            Ok(mut response) => {
                let text = response
                    .body_mut()
                    .with_config()
                    .limit(ANSWER_BYTES_MAX)
                    .lossy_utf8(true)
                    .read_to_string();
                text.map(Some).map_err(|e| self.unreachable(&e))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens bytes, with their headers.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) fn bytes(&self, path: &str) -> Result<(HeaderMap, impl Read + use<>), ClientError> {
        let request = self.request(Method::GET, path, &[], &[])?;
        let (parts, body) = self.call(&self.inner.agent, request)?.into_parts();
        Ok((parts.headers, body.into_reader()))
    }
}

/// A controller's address.
///
/// # Errors
/// [`ClientError::Url`].
pub(crate) fn address(url: &str) -> Result<Uri, ClientError> {
    let uri = url.parse::<Uri>().ok();
    let good = |uri: &Uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
    };
    uri.filter(good).ok_or_else(|| ClientError::Url(url.to_owned()))
}

/// Whether an address names this machine itself, whatever a name service says.
pub(crate) fn names_loopback(url: &str) -> bool {
    url.parse().is_ok_and(|uri| is_loopback(&uri))
}

fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Reads an answer's object.
///
/// # Errors
/// [`ClientError::Malformed`].
pub(crate) fn parsed<T: DeserializeOwned>(value: &Value) -> Result<T, ClientError> {
    T::deserialize(value).map_err(|e| ClientError::Malformed(e.to_string()))
}

/// The address in `Link: <…>; rel="next"`.
fn next_page(link: &str) -> Option<String> {
    let one = link.split(',').find(|part| part.contains("rel=\"next\""))?;
    let (_, rest) = one.split_once('<')?;
    Some(rest.split_once('>')?.0.to_owned())
}

/// A text as one segment of a path, or one value of a query.
pub(crate) fn part(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        for bad in ["", "localhost:8080", "ftp://x", "http://", "/api"] {
            assert!(matches!(Client::new(bad, None), Err(ClientError::Url(_))), "{bad}");
        }
        assert!(Client::new("https://signet.example.com/", None).is_ok());
    }

    #[test]
    fn loopback_needs_no_proxy() {
        for (url, loopback) in [
            ("http://localhost:1", true),
            ("http://[::1]:1", true),
            ("http://127.0.0.2", true),
            ("http://a", false),
        ] {
            assert_eq!(is_loopback(&url.parse().unwrap()), loopback, "{url}");
        }
    }

    #[test]
    fn links_and_parts() {
        assert_eq!(next_page("</api/tasks?cursor=a>; rel=\"next\"").unwrap(), "/api/tasks?cursor=a");
        assert!(next_page("</x>; rel=\"prev\"").is_none());
        assert_eq!(part("a b/ä%"), "a%20b%2F%C3%A4%25");
    }

    #[test]
    fn a_token_is_never_printed() {
        let client = Client::new("http://127.0.0.1:1", Some(Token::new("s3cret"))).unwrap();
        assert!(!format!("{client:?}").contains("s3cret"));
    }
}
