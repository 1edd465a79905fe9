//! From sqlx's errors to [`ClientError`].

use std::io;

use pgqueue_postgres::ClientError;
use sqlx::Error;

/// Maps an error from when nothing had been sent: while a URL was read, or a connection was made.
pub(crate) fn before_sending(error: Error) -> ClientError {
    match error {
        // rustls does not like the certificate, or the other side does not speak TLS.
        Error::Io(ref io) if io.kind() == io::ErrorKind::InvalidData => ClientError::Unusable(error.into()),
        Error::Io(_) => ClientError::Unreachable(error.into()),
        error => other(error),
    }
}

/// Maps an error from when something had been sent.
pub(crate) fn after_sending(error: Error) -> ClientError {
    match error {
        Error::Io(_) => ClientError::Lost(error.into()),
        error => other(error),
    }
}

fn other(error: Error) -> ClientError {
    match &error {
        Error::Database(refusal) => ClientError::Refused {
            code: refusal.code().unwrap_or_default().into_owned(),
            message: refusal.message().to_owned(),
            source: error.into(),
        },
        Error::PoolClosed | Error::PoolTimedOut => ClientError::Unreachable(error.into()),
        _ => ClientError::Unusable(error.into()),
    }
}

/// Whether the connection on which an error arose may be used again.
pub(crate) fn leaves_connection_usable(error: &Error) -> bool {
    /// What the session knows of prepared statements differs from what sqlx remembers: a prepared statement vanished,
    /// exists already, or returns other columns than it did.
    const FORGOTTEN: [&str; 3] = ["26000", "42P05", "0A000"];
    match error {
        Error::Database(refusal) => refusal.code().is_some_and(|code| !FORGOTTEN.contains(&&*code)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_may_have_taken_effect() {
        let reset = || Error::Io(io::ErrorKind::ConnectionReset.into());
        assert!(matches!(before_sending(reset()), ClientError::Unreachable(_)));
        assert!(matches!(after_sending(reset()), ClientError::Lost(_)));
        assert!(!leaves_connection_usable(&reset()));
    }

    #[test]
    fn bad_certificates_are_no_outage() {
        let certificate = Error::Io(io::Error::new(io::ErrorKind::InvalidData, "invalid peer certificate"));
        assert!(matches!(before_sending(certificate), ClientError::Unusable(_)));
        assert!(matches!(before_sending(Error::Tls("server does not support TLS".into())), ClientError::Unusable(_)));
    }

    #[test]
    fn the_source_is_the_error_of_sqlx() {
        let ClientError::Unreachable(source) = before_sending(Error::PoolClosed) else { panic!("another kind") };
        assert!(matches!(source.downcast_ref::<Error>(), Some(Error::PoolClosed)));
    }
}
