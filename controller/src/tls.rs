//! Certificates: those that are believed, and the one that is shown.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use signet_common::tls::{Identity, TlsFiles};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::limits::{TLS_HANDSHAKE_SECONDS_MAX, TLS_LOOK_SECONDS};

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// How a client of ours talks to the broker: it trusts the system's certificates and those of the settings, and shows its own
/// if it has one.
///
/// # Errors
/// When a file can't be read or does not hold what it should.
pub(crate) fn client(settings: &TlsFiles) -> anyhow::Result<ClientConfig> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "certificates can't be read");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if let Some(path) = &settings.ca {
        for certificate in certificates(path)? {
            roots.add(certificate).with_context(|| path.display().to_string())?;
        }
    }
    let versions = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let config = versions.with_root_certificates(roots);
    let Some(own) = &settings.identity else { return Ok(config.with_no_client_auth()) };
    let key = PrivateKeyDer::from_pem_file(&own.key).with_context(|| own.key.display().to_string())?;
    let client = config.with_client_auth_cert(certificates(&own.cert)?, key);
    client.with_context(|| own.cert.display().to_string())
}

/// The certificates in a PEM file, at least one.
fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let name = || path.display().to_string();
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .with_context(name)?
        .collect::<Result<_, _>>()
        .with_context(name)?;
    anyhow::ensure!(!found.is_empty(), "{}: no certificate in it", path.display());
    Ok(found)
}

/// What the listeners show, read again when its files change: who renews them need not restart anything.
pub(crate) struct Certificate {
    files: Identity,
    /// What was read last, good or bad.
    read: Mutex<Content>,
    good: RwLock<TlsAcceptor>,
}

/// Both files as they are.
#[derive(Clone, PartialEq, Eq)]
struct Content {
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Content {
    fn read(files: &Identity) -> anyhow::Result<Self> {
        let read = |path: &Path| std::fs::read(path).with_context(|| path.display().to_string());
        Ok(Self { cert: read(&files.cert)?, key: read(&files.key)? })
    }

    /// Takes connections with it; refuses a key that is not the certificate's.
    fn acceptor(&self) -> anyhow::Result<TlsAcceptor> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&self.cert)
            .collect::<Result<_, _>>()
            .context("the certificate is not PEM")?;
        anyhow::ensure!(!chain.is_empty(), "there is no certificate in its file");
        let key = PrivateKeyDer::from_pem_slice(&self.key).context("there is no private key in its file")?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

impl Certificate {
    /// Reads both files.
    ///
    /// # Errors
    /// When one can't be read or they don't belong together.
    pub(crate) fn load(files: Identity) -> anyhow::Result<Self> {
        let content = Content::read(&files)?;
        let good = content.acceptor()?;
        Ok(Self { files, read: Mutex::new(content), good: RwLock::new(good) })
    }

    /// What new connections are taken with.
    fn current(&self) -> TlsAcceptor {
        self.good.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Agrees with a client, within a bounded time. `None` when that failed.
    pub(crate) async fn accept(&self, stream: TcpStream, peer: SocketAddr) -> Option<TlsStream<TcpStream>> {
        let wait = Duration::from_secs(TLS_HANDSHAKE_SECONDS_MAX);
        match tokio::time::timeout(wait, self.current().accept(stream)).await {
            Ok(Ok(stream)) => return Some(stream),
            // Also who speaks plain HTTP to this port, and scanners: no reason for a louder word.
            Ok(Err(error)) => tracing::debug!(%error, %peer, "a client and we agreed on no TLS"),
            Err(_) => tracing::debug!(%peer, "a client took too long for TLS"),
        }
        None
    }

    /// Looks whether the files have changed. What can't be used changes nothing, and is said once.
    fn look(&self) {
        let content = match Content::read(&self.files) {
            Ok(content) => content,
            Err(error) => {
                return tracing::error!("the certificate can't be read, the one before stays: {error:#}");
            }
        };
        {
            let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
            if *read == content {
                return;
            }
            read.clone_from(&content);
        }
        match content.acceptor() {
            Ok(acceptor) => {
                *self.good.write().unwrap_or_else(PoisonError::into_inner) = acceptor;
                tracing::info!("the certificate was read again");
            }
            Err(error) => {
                tracing::error!("the new certificate can't be used, the one before stays: {error:#}")
            }
        }
    }

    /// Looks now and then, and upon SIGHUP, until `stop`.
    pub(crate) async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let mut hangup = match signal(SignalKind::hangup()) {
            Ok(hangup) => Some(hangup),
            Err(error) => {
                tracing::warn!(%error, "SIGHUP is not heard");
                None
            }
        };
        loop {
            let asked = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                _ = asked => {}
                () = tokio::time::sleep(Duration::from_secs(TLS_LOOK_SECONDS)) => {}
            }
            let this = Arc::clone(&self);
            // Reading files blocks.
            if let Err(error) = tokio::task::spawn_blocking(move || this.look()).await {
                tracing::error!(%error, "the look at the certificate failed");
            }
        }
    }
}
