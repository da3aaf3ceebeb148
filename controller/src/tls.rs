//! Certificates.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// What a client of ours trusts: the system's certificates, and those in `ca` (PEM).
///
/// # Errors
/// When `ca` can't be read or has no certificate in it.
pub(crate) fn client(ca: Option<&Path>) -> anyhow::Result<ClientConfig> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "certificates can't be read");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if let Some(path) = ca {
        for certificate in certificates(path)? {
            roots.add(certificate).with_context(|| path.display().to_string())?;
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
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
