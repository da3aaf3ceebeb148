//! The requests that an agent makes over HTTP. They block; call them from a thread that may.

use std::sync::Once;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use signet_common::envelope::DsseJson;
use ureq::Proxy;
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::limits::{HELLO_ANSWER_BYTES_MAX, HELLO_HEADER_BYTES_MAX, HELLO_TIMEOUT};

/// The header of a hello's answer that carries the chain of keyrings: base64 of a JSON array, oldest first.
pub const KEYRING_HEADER: &str = "signet-keyring";

/// Why there was no answer that could be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The controller's address is malformed.
    #[error("the controller's address {0:?} is not an http or https URL")]
    Url(String),
    /// Nobody answered.
    #[error("the controller can't be reached: {0}")]
    Unreachable(String),
    /// The controller said no.
    #[error("the controller answers {status}: {detail}")]
    Refused {
        /// The status.
        status: u16,
        /// Its `detail`.
        detail: String,
    },
    /// The answer is not what it should be.
    #[error("the controller's answer is malformed: {0}")]
    Malformed(&'static str),
}

/// The controller's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Controller {
    base: String,
    protected: bool,
    loopback: bool,
}

impl Controller {
    /// Checks an address.
    ///
    /// # Errors
    /// [`HttpError::Url`].
    pub fn parse(text: &str) -> Result<Self, HttpError> {
        let bad = || HttpError::Url(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| bad())?;
        let host = uri.host().filter(|h| !h.is_empty()).ok_or_else(bad)?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let loopback = bare == "localhost"
            || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        let protected = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => loopback,
            _ => return Err(bad()),
        };
        Ok(Self { base: text.trim_end_matches('/').to_owned(), protected, loopback })
    }

    /// Whether nobody can sit in between: TLS, or the same machine.
    #[must_use]
    pub fn is_protected(&self) -> bool {
        self.protected
    }

    /// The address as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.base
    }
}

/// A hello's answer, not believed yet.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The signed welcome.
    pub welcome: DsseJson,
    /// The chain of keyrings, oldest first.
    pub chain: Vec<DsseJson>,
}

/// One conversation with the controller.
pub struct Client<'a> {
    controller: &'a Controller,
    agent: ureq::Agent,
}

impl<'a> Client<'a> {
    /// Ready to ask. Connections are not kept: an hour lies between two hellos.
    #[must_use]
    pub fn new(controller: &'a Controller) -> Self {
        provide_cryptography();
        let tls = TlsConfig::builder().root_certs(root_certs()).build();
        let config = ureq::Agent::config_builder()
            .tls_config(tls)
            // A proxy that the environment names reaches another loopback than ours.
            .proxy(if controller.loopback { None } else { Proxy::try_from_env() })
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(HELLO_TIMEOUT))
            .max_response_header_size(HELLO_HEADER_BYTES_MAX)
            .input_buffer_size(HELLO_HEADER_BYTES_MAX)
            .user_agent(concat!("signet-agent/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { controller, agent: config.new_agent() }
    }

    /// `GET /api/agents/nonce`.
    ///
    /// # Errors
    /// [`HttpError`].
    pub fn nonce(&self) -> Result<String, HttpError> {
        #[derive(Deserialize)]
        struct Nonce {
            nonce: String,
        }
        let url = format!("{}/api/agents/nonce", self.controller.base);
        let answer = read(self.agent.get(url).call())?;
        let parsed = serde_json::from_slice::<Nonce>(&answer.body);
        parsed.map(|n| n.nonce).map_err(|_| HttpError::Malformed("no nonce"))
    }

    /// `POST /api/agents/leave`.
    ///
    /// # Errors
    /// [`HttpError`].
    pub fn leave(&self, leave: &DsseJson) -> Result<(), HttpError> {
        self.post("leave", leave).map(drop)
    }

    fn post(&self, what: &str, message: &DsseJson) -> Result<Read, HttpError> {
        let url = format!("{}/api/agents/{what}", self.controller.base);
        let body = serde_json::to_vec(message).map_err(|_| HttpError::Malformed("the message"))?;
        read(self.agent.post(url).content_type("application/json").send(&body))
    }

    /// `POST /api/agents/hello`.
    ///
    /// # Errors
    /// [`HttpError`].
    pub fn hello(&self, hello: &DsseJson) -> Result<Answer, HttpError> {
        let answer = self.post("hello", hello)?;
        let chain = answer.keyring.ok_or(HttpError::Malformed("no keyring"))?;
        let chain = STANDARD.decode(chain).map_err(|_| HttpError::Malformed("the keyring's base64"))?;
        Ok(Answer {
            welcome: serde_json::from_slice(&answer.body).map_err(|_| HttpError::Malformed("no envelope"))?,
            chain: serde_json::from_slice(&chain).map_err(|_| HttpError::Malformed("the keyring"))?,
        })
    }
}

/// Asks any address with GET, straight and without following redirects, and gives the status.
///
/// # Errors
/// Nobody answered within `timeout`.
pub fn status_of(url: &str, timeout: Duration) -> Result<u16, String> {
    let mut config = ureq::Agent::config_builder()
        .proxy(None)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_global(Some(timeout))
        .user_agent(concat!("signet-agent/", env!("CARGO_PKG_VERSION")));
    if url.starts_with("https:") {
        provide_cryptography();
        config = config.tls_config(TlsConfig::builder().root_certs(root_certs()).build());
    }
    let answer = config.build().new_agent().get(url).call().map_err(|error| match error {
        ureq::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    })?;
    Ok(answer.status().as_u16())
}

struct Read {
    body: Vec<u8>,
    keyring: Option<String>,
}

fn read(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Read, HttpError> {
    let unreachable = |e: ureq::Error| HttpError::Unreachable(e.to_string());
    let mut answer = answer.map_err(unreachable)?;
    let status = answer.status();
    let body =
        answer.body_mut().with_config().limit(HELLO_ANSWER_BYTES_MAX).read_to_vec().map_err(unreachable)?;
    if !status.is_success() {
        #[derive(Deserialize)]
        struct Detail {
            detail: String,
        }
        let detail = serde_json::from_slice::<Detail>(&body);
        let detail = detail.map_or_else(|_| "no explanation".to_owned(), |d| d.detail);
        return Err(HttpError::Refused { status: status.as_u16(), detail });
    }
    let keyring = answer.headers().get(KEYRING_HEADER).and_then(|v| v.to_str().ok()).map(str::to_owned);
    Ok(Read { body, keyring })
}

/// rustls takes its cryptography from the process. Another part of it may have provided the same before.
pub fn provide_cryptography() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
            tracing::debug!("cryptography is provided already");
        }
    });
}

/// The system's certificates, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name; Mozilla's where there are none.
#[must_use]
pub fn root_certs() -> RootCerts {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "certificates can't be read");
    }
    if found.certs.is_empty() {
        return RootCerts::WebPki;
    }
    let certs: Vec<Certificate<'static>> =
        found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    RootCerts::new_with_certs(&certs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, protected) in [
            ("https://signet.example.com", true),
            ("http://127.0.0.1:8080/", true),
            ("http://[::1]:8080", true),
            ("http://localhost:8080", true),
            ("http://10.0.0.1:8080", false),
            ("http://127.0.0.1.example.com", false),
        ] {
            assert_eq!(Controller::parse(text).unwrap().is_protected(), protected, "{text}");
        }
        for bad in ["", "signet", "ftp://x", "http://", "/api"] {
            assert!(Controller::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Controller::parse("http://a/").unwrap().as_str(), "http://a");
    }
}
