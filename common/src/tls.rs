//! Where certificates lie.

use std::path::PathBuf;

/// A certificate with its key, both PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, and after it those between it and the authority.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// How a client is set up for TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates in PEM to trust besides the system's.
    pub ca: Option<PathBuf>,
    /// With what it shows who it is.
    pub identity: Option<Identity>,
}
