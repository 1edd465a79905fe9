//! From a URL to a pool.

use std::time::Duration;

use pgqueue_postgres::ClientError;
use sqlx::{
    Connection as _, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
};

use crate::{error, pool};

/// How long a connection may rest before it is tested, which costs a round trip.
const REST: Duration = Duration::from_secs(1);

/// Makes the pool, which connects when it is first used.
pub(crate) fn pool(options: PgConnectOptions) -> PgPool {
    PgPoolOptions::new()
        .max_connections(16)
        .acquire_timeout(pool::LONGEST_WAIT)
        .test_before_acquire(false) // but as follows
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for >= REST {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .connect_lazy_with(options)
}

/// Reads a URL.
pub(crate) fn options(url: &str) -> Result<PgConnectOptions, ClientError> {
    // sqlx would take any scheme.
    if !(url.starts_with("postgres://") || url.starts_with("postgresql://")) {
        return Err(ClientError::Unusable("the URL does not begin with postgres:// or postgresql://".into()));
    }
    let options: PgConnectOptions = url.parse().map_err(|error: sqlx::Error| {
        // An error that quotes the URL may quote a secret in the wrong place.
        let quotes = error.to_string().contains('"');
        if quotes {
            ClientError::Unusable("the URL has an unknown sslmode".into())
        } else {
            error::before_sending(error)
        }
    })?;
    // The name of the host reaches the resolver and TLS as it is, and neither knows the brackets of a URL.
    let host = options.get_host().trim_matches(['[', ']']).to_owned();
    let application = options.get_application_name().unwrap_or("pgqueue").to_owned();
    let options = options
        .host(&host)
        .application_name(&application)
        .extra_float_digits(None) // concerns text, of which there is none; and poolers stumble over it
        .options([("default_transaction_isolation", "read committed")]);
    with_tls(options)
}

/// Takes care that there is TLS, or that its absence is wanted.
fn with_tls(options: PgConnectOptions) -> Result<PgConnectOptions, ClientError> {
    let local = options.get_socket().is_some() || options.get_host().starts_with('/');
    match options.get_ssl_mode() {
        PgSslMode::Disable => Ok(options),
        _ if local => Ok(options.ssl_mode(PgSslMode::Disable)),
        _ if !cfg!(feature = "rustls") => Err(ClientError::Unusable(
            "this build has no TLS: enable the feature `rustls` of pgqueue-sqlx, or say sslmode=disable in the URL"
                .into(),
        )),
        PgSslMode::Allow | PgSslMode::Prefer => Ok(options.ssl_mode(PgSslMode::Require)),
        PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull => Ok(options),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn isolation_and_name_are_set_beside_what_the_url_says() {
        let options = options("postgres://localhost/db?sslmode=disable&options=-c%20geqo%3Doff").unwrap();
        assert_eq!(options.get_options(), Some(r"-c geqo=off -c default_transaction_isolation=read\ committed"));
        assert_eq!(options.get_application_name(), Some("pgqueue"));
        let named = super::options("postgres://[::1]/db?sslmode=disable&application_name=shop").unwrap();
        assert_eq!((named.get_application_name(), named.get_host()), (Some("shop"), "::1"));
    }

    #[test]
    fn unix_sockets_need_no_tls() {
        for url in ["postgres://%2Frun%2Fpostgresql/db", "postgres:///db?host=/run/postgresql&sslmode=require"] {
            assert!(matches!(options(url).unwrap().get_ssl_mode(), PgSslMode::Disable), "{url}");
        }
    }

    #[cfg(feature = "rustls")]
    #[test]
    fn tls_is_never_optional() {
        for (mode, becomes) in [("allow", "Require"), ("prefer", "Require"), ("verify-full", "VerifyFull")] {
            let options = options(&format!("postgres://localhost/db?sslmode={mode}")).unwrap();
            assert_eq!(format!("{:?}", options.get_ssl_mode()), becomes);
        }
    }
}
