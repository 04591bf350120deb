//! TLS towards servers that this machine trusts.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

/// Without a certificate of its own.
///
/// # Errors
/// [`rustls::Error`] when the provider has no protocol version in common with it.
pub fn client_config() -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}
