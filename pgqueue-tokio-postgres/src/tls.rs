//! [`Tls`]: how connections are encrypted.

use pgqueue_postgres::ClientError;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Config, Socket};

/// What a TLS connector must be; every [`MakeTlsConnect`] that can be shared between tasks is.
///
/// Implementations exist in `tokio-postgres-rustls`, `postgres-native-tls` and `postgres-openssl`, among others.
pub trait Tls:
    MakeTlsConnect<Socket, Stream: Send + Sync, TlsConnect: TlsConnect<Socket, Future: Send> + Send + Sync>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<T> Tls for T where
    T: MakeTlsConnect<Socket, Stream: Send + Sync, TlsConnect: TlsConnect<Socket, Future: Send> + Send + Sync>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// Makes the connector that comes with the crate.
#[cfg(not(feature = "rustls"))]
pub(crate) fn bundled(_: &Config) -> Result<tokio_postgres::NoTls, ClientError> {
    let advice = "TLS is missing: give a TLS connector, enable the feature `rustls`, or say sslmode=disable";
    Err(ClientError::Unusable(advice.into()))
}

/// Makes the connector that comes with the crate. Reads the certificates that the machine trusts.
#[cfg(feature = "rustls")]
pub(crate) fn bundled(config: &Config) -> Result<tokio_postgres_rustls::MakeRustlsConnect, ClientError> {
    use std::sync::Arc;

    use rustls::crypto::ring;
    use rustls::{ClientConfig, RootCertStore};
    use tokio_postgres::config::SslNegotiation;

    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        let advice = "this machine trusts no certificates: install some, or name a file in SSL_CERT_FILE";
        return Err(ClientError::Unusable(advice.into()));
    }
    let mut tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|source| ClientError::Unusable(source.into()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    if config.get_ssl_negotiation() == SslNegotiation::Direct {
        tls.alpn_protocols = vec![b"postgresql".to_vec()]; // the server insists
    }
    Ok(tokio_postgres_rustls::MakeRustlsConnect::new(tls))
}
