//! What the crate reads from a connection's configuration, and what it adds.

use std::time::Duration;

use pgqueue_postgres::ClientError;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

/// Options of libpq that tokio-postgres does not know. Only these are named in an error: any other "unknown option" may be
/// a part of a password that someone forgot to quote.
const OPTIONS_OF_LIBPQ: [&str; 11] = [
    "client_encoding",
    "fallback_application_name",
    "gssencmode",
    "passfile",
    "require_auth",
    "service",
    "sslcert",
    "sslcrl",
    "sslkey",
    "sslpassword",
    "sslrootcert",
];

/// Reads a URL or a string of `key=value` pairs.
pub(crate) fn parse(url: &str) -> Result<Config, ClientError> {
    url.parse().map_err(|error: tokio_postgres::Error| {
        // The error itself may quote the string, and the string may hold a password: it is read, but not kept.
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        let is_known = cause.starts_with("invalid value for option")
            || OPTIONS_OF_LIBPQ.iter().any(|option| cause == format!("unknown option `{option}`"));
        let reason = if is_known { cause.as_str() } else { "is something not quoted or percent-encoded?" };
        ClientError::Unusable(format!("the connection string cannot be read: {reason}").into())
    })
}

/// Checks early what would else fail with the first connection.
pub(crate) fn ensure_host(config: &Config) -> Result<(), ClientError> {
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err(ClientError::Unusable("the connection's configuration names no host".into()));
    }
    Ok(())
}

/// Returns whether connections are plain: by wish, or because there is no TLS on Unix sockets.
pub(crate) fn is_plain(config: &Config) -> bool {
    let is_socket = |host: &Host| !matches!(host, Host::Tcp(_));
    let hosts = config.get_hosts();
    let only_sockets = !hosts.is_empty() && hosts.iter().all(is_socket) && config.get_hostaddrs().is_empty();
    config.get_ssl_mode() == SslMode::Disable || only_sockets
}

/// Completes the configuration of any connection that the crate opens.
pub(crate) fn for_queue(mut config: Config) -> Config {
    const READ_COMMITTED: &str = r"-c default_transaction_isolation=read\ committed";
    let tls = if is_plain(&config) { SslMode::Disable } else { SslMode::Require };
    let options = config.get_options().map_or_else(|| READ_COMMITTED.into(), |own| format!("{own} {READ_COMMITTED}"));
    config.ssl_mode(tls).options(options);
    if config.get_application_name().is_none() {
        config.application_name("pgqueue");
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(Duration::from_secs(5));
    }
    config
}

/// Completes the configuration of a connection for notifications, which is silent for long and must notice a dead server.
pub(crate) fn for_listener(config: Config) -> Config {
    const NEVER_SET: Duration = Duration::from_secs(2 * 60 * 60);
    let mut config = for_queue(config);
    if config.get_keepalives_idle() == NEVER_SET {
        config.keepalives_idle(Duration::from_secs(5));
    }
    if config.get_keepalives_interval().is_none() {
        config.keepalives_interval(Duration::from_secs(2));
    }
    if config.get_keepalives_retries().is_none() {
        config.keepalives_retries(2);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(Duration::from_secs(10));
    }
    config
}

/// How long to connect may take in all: the configuration limits only the wait for each address, and what is said after
/// that not at all. A host has two addresses as a rule.
pub(crate) fn time_to_connect(config: &Config) -> Duration {
    let hosts = config.get_hosts().len().max(config.get_hostaddrs().len());
    let waits = u32::try_from(2 * hosts + 1).unwrap_or(u32::MAX);
    config.get_connect_timeout().copied().unwrap_or_default().saturating_mul(waits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> Config {
        url.parse().unwrap()
    }

    fn error(url: &str) -> String {
        format!("{:?}", parse(url).unwrap_err())
    }

    #[test]
    fn tls_is_never_a_preference() {
        let mode = |url| for_queue(config(url)).get_ssl_mode();
        assert_eq!(mode("host=localhost"), SslMode::Require);
        assert_eq!(mode("host=localhost sslmode=prefer"), SslMode::Require);
        assert_eq!(mode("host=localhost sslmode=disable"), SslMode::Disable);
        assert_eq!(mode("host=/run/postgresql"), SslMode::Disable);
        assert_eq!(mode("host=/run/postgresql,localhost"), SslMode::Require);
        assert_eq!(mode("host=/run/postgresql hostaddr=127.0.0.1"), SslMode::Require);
    }

    #[test]
    fn what_the_user_said_stands() {
        let said = "host=h application_name=shop connect_timeout=7 keepalives_idle=60 keepalives_interval=9 \
                    keepalives_retries=8 tcp_user_timeout=30 options='-c work_mem=8MB'";
        let (said, completed) = (config(said), for_listener(config(said)));
        assert_eq!(completed.get_application_name(), said.get_application_name());
        assert_eq!(completed.get_connect_timeout(), said.get_connect_timeout());
        assert_eq!(completed.get_keepalives_idle(), said.get_keepalives_idle());
        assert_eq!(completed.get_keepalives_interval(), said.get_keepalives_interval());
        assert_eq!(completed.get_keepalives_retries(), said.get_keepalives_retries());
        assert_eq!(completed.get_tcp_user_timeout(), said.get_tcp_user_timeout());
        assert!(completed.get_options().unwrap().starts_with("-c work_mem=8MB -c "));
    }

    #[test]
    fn unreadable_strings_are_not_quoted() {
        for url in [
            "postgres:/app:hunter2@host/db?sslmode=disable", // a slash is missing
            "host=h password=my hunter2=3",
            "postgres://app@host/db?hunter2=3",
            "postgres://app:hunter2@host:hunter2/db",
        ] {
            let error = error(url);
            assert!(error.contains("cannot be read") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn errors_name_the_option() {
        assert!(error("host=h sslmode=verify-full").contains("invalid value for option `sslmode`"));
        assert!(error("host=h sslrootcert=ca.pem").contains("unknown option `sslrootcert`"));
    }
}
