//! Certificates from files, and TLS towards servers that this machine trusts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// Why certificates and keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("TLS certificate or key {path}: {source}")]
    Pem { path: String, source: pem::Error },
    #[error("TLS certificate and key do not serve: {0}")]
    Rustls(#[from] rustls::Error),
}

impl TlsError {
    fn pem(path: &Path, source: pem::Error) -> Self {
        let path = path.display().to_string();
        Self::Pem { path, source }
    }
}

/// Reads the certificates of a PEM file.
///
/// # Errors
/// [`TlsError`] naming the file.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|source| TlsError::pem(path, source))
}

/// Reads the private key of a PEM file.
///
/// # Errors
/// [`TlsError`] naming the file.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|source| TlsError::pem(path, source))
}

/// The authorities of a PEM file.
///
/// # Errors
/// [`TlsError`].
pub fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

/// Whom a client trusts, and what it shows.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// Who signs the server's certificate; without it whoever this machine trusts.
    pub authority: Option<PathBuf>,
    /// The client's certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl ClientTls {
    /// # Errors
    /// [`TlsError`].
    pub fn config(&self) -> Result<ClientConfig, TlsError> {
        let roots = match &self.authority {
            Some(path) => authorities(path)?,
            None => {
                let mut roots = RootCertStore::empty();
                let found = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(found.certs);
                roots
            }
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        Ok(match &self.identity {
            Some((certificate, key)) => {
                builder.with_client_auth_cert(certificates(certificate)?, private_key(key)?)?
            }
            None => builder.with_no_client_auth(),
        })
    }
}
