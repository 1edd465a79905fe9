//! What a client's error means for the queue.

use std::time::Duration;

use pgqueue_core::{Error, ErrorKind, Result};

use crate::{ClientError, migrate};

/// Codes of SQLSTATE that the queue's own functions raise.
const UNKNOWN_TOPIC: &str = "PQ001";
const UNKNOWN_SUBSCRIPTION: &str = "PQ002";
const NOT_ALONE: &str = "PQ004";
const TRUNCATED: &str = "PQ005";
const UNKNOWN_POSITION: &str = "PQ006";
const CUT_OFF: &str = "PQ007";
const IN_USE: &str = "PQ008";
const NOT_AT_REST: &str = "PQ009";
const ELSEWHERE: &str = "PQ010";
const UNSOUND: &str = "PQ011";

/// Codes of PostgreSQL's own.
const MISSING_SCHEMA: &str = "3F000";
const MISSING_TABLE: &str = "42P01";
const MISSING_FUNCTION: &str = "42883";
const MISSING_COLUMN: &str = "42703";
const MISSING_ROLE: &str = "42704";
pub(crate) const MISSING_PRIVILEGE: &str = "42501";

/// What a statement is about, for the errors that say it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum About<'a> {
    Topic(&'a str),
    Subscription(&'a str),
    /// A user's own, or what they query of theirs.
    Table(&'a str),
    Queue,
}

/// Turns a client's error into the queue's, of a statement that may be repeated if it is not known to have failed.
pub(crate) fn repeatable(error: ClientError, about: About<'_>) -> Error {
    match error {
        ClientError::Unreachable(source) => {
            Error::new(ErrorKind::Connection, "the PostgreSQL server cannot be reached").with_source(source)
        }
        ClientError::PoolExhausted(source) => Error::new(
            ErrorKind::Fatal,
            "every connection of the pool is in use, for as long as the pool waits; allow it more connections, or hold them for less long",
        )
        .with_source(source),
        ClientError::Lost(source) => {
            Error::new(ErrorKind::Connection, "the connection to the PostgreSQL server was lost").with_source(source)
        }
        // Its reason is said at once: it is the caller's to mend.
        ClientError::Unusable(source) => {
            let message = format!("the PostgreSQL client cannot be used like this: {source}");
            Error::new(ErrorKind::Fatal, message).with_source(source)
        }
        ClientError::Refused { code, message, source } => refused(&code, message, about).with_source(source),
    }
}

/// As [`repeatable`], of a statement that must not be repeated unless it is known to have failed.
pub(crate) fn unrepeatable(error: ClientError, about: About<'_>) -> Error {
    match error {
        ClientError::Lost(source) => Error::new(
            ErrorKind::Unknown,
            "the connection was lost before the server answered; whether this took effect is not known",
        )
        .with_source(source),
        error => repeatable(error, about),
    }
}

/// No answer came within the time limit.
pub(crate) fn timed_out(limit: Duration) -> Error {
    Error::new(ErrorKind::Timeout, format!("the PostgreSQL server did not answer within {limit:?}"))
}

/// Reads SQLSTATE (PostgreSQL documentation, appendix A).
fn refused(code: &str, message: String, about: About<'_>) -> Error {
    match (code, about) {
        (UNKNOWN_TOPIC, About::Topic(name)) => Error::topic_not_found(name),
        (UNKNOWN_SUBSCRIPTION, About::Subscription(name)) => Error::subscription_not_found(name),
        (UNKNOWN_TOPIC | UNKNOWN_SUBSCRIPTION, _) => Error::new(ErrorKind::NotFound, message),
        (NOT_ALONE, _) => Error::new(
            ErrorKind::Fatal,
            format!("{message}; set default_transaction_isolation to 'read committed' for the connections of the pool"),
        ),
        (TRUNCATED, _) => {
            let remedy = "start from the beginning of what is retained, or let the topic retain more";
            Error::new(ErrorKind::Truncated, format!("{message}: {remedy}"))
        }
        (UNKNOWN_POSITION, _) => Error::new(ErrorKind::Invalid, message),
        (CUT_OFF, About::Subscription(name)) => Error::cut_off(name),
        (IN_USE, About::Subscription(name)) => Error::in_use(name),
        (ELSEWHERE, _) => Error::new(ErrorKind::Fatal, format!("{message}; call `migrate`, which sees to that")),
        (UNSOUND, _) => Error::new(ErrorKind::Fatal, message),
        (NOT_AT_REST, _) => Error::new(ErrorKind::Conflict, message),
        (MISSING_SCHEMA | MISSING_TABLE | MISSING_FUNCTION | MISSING_COLUMN, About::Table(name)) => {
            let remedy = "create what is missing, or correct what names it";
            Error::new(ErrorKind::Fatal, format!("{name} does not fit what was said of it: {message}; {remedy}"))
        }
        (MISSING_PRIVILEGE, About::Table(name)) => Error::new(
            ErrorKind::Fatal,
            format!("a privilege is missing for {name}: {message}; let the owner grant it"),
        ),
        // A table has other columns since a connection prepared its statement; the next connection prepares it anew.
        ("0A000", About::Table(_)) => Error::new(ErrorKind::Query, message).with_transient(true),
        (MISSING_SCHEMA | MISSING_TABLE | MISSING_FUNCTION | MISSING_COLUMN, _) => Error::new(
            ErrorKind::Fatal,
            format!(
                "the schema of the queue is missing or too old for this binary: {message}; call `migrate`, which brings it to version {}",
                migrate::VERSION
            ),
        ),
        (MISSING_ROLE, About::Queue) => Error::new(ErrorKind::NotFound, message),
        (MISSING_PRIVILEGE, _) => {
            let remedy = "let the schema's owner grant it with `grant_to`, or in SQL with pgqueue.grant_publisher('the role'), grant_consumer or grant_admin";
            Error::new(ErrorKind::Fatal, format!("a privilege is missing: {message}; {remedy}"))
        }
        ("25006", _) => Error::new(
            ErrorKind::Fatal,
            format!("the server is read-only, a standby perhaps: {message}; connect to the primary"),
        ),
        // Shutting down, crashing, starting up, too many clients, or a connection or a transaction that has had its time.
        ("57P01" | "57P02" | "57P03" | "57P05" | "53300" | "25P03" | "25P04", _) => {
            Error::new(ErrorKind::Connection, message)
        }
        // Of the class of connections, but no such exception: bound values that do not fit a statement.
        ("08P01", _) => Error::new(ErrorKind::Query, message),
        (code, _) if code.starts_with("08") => Error::new(ErrorKind::Connection, message),
        // Authentication, and a database that does not exist.
        (code, _) if code.starts_with("28") || code == "3D000" => Error::new(ErrorKind::Fatal, message),
        // Which a client then prepares anew.
        ("26000", _) => Error::new(
            ErrorKind::Query,
            format!("{message}; behind a pooler in transaction mode, let the client send unnamed statements"),
        )
        .with_transient(true),
        // Cancelled by a statement or lock timeout.
        ("57014" | "55P03", _) => Error::new(ErrorKind::Query, message).with_transient(true),
        // Serialization failures, deadlocks; a full disk or memory, which others may free.
        (code, _) if code.starts_with("40") || code.starts_with("53") => {
            Error::new(ErrorKind::Query, message).with_transient(true)
        }
        // Input that cannot be stored.
        (code, _) if code.starts_with("22") => Error::new(ErrorKind::Invalid, message),
        (code, _) => Error::new(ErrorKind::Query, format!("the PostgreSQL server refused with {code}: {message}")),
    }
}

/// The same error for another who waits; the source stays with the first.
pub(crate) fn repeat(error: &Error) -> Error {
    Error::new(error.kind(), error.to_string()).with_transient(error.is_transient())
}

/// Calls the server with a time limit.
pub(crate) async fn within<T>(limit: Duration, call: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(limit, call).await.unwrap_or_else(|_| Err(timed_out(limit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: &str) -> (ErrorKind, bool) {
        let error = refused(code, "no".into(), About::Topic("t"));
        (error.kind(), error.is_transient())
    }

    #[test]
    fn classes_of_sqlstate_become_kinds() {
        assert_eq!(of("PQ001"), (ErrorKind::NotFound, false));
        assert_eq!(of("42P01"), (ErrorKind::Fatal, false));
        assert_eq!(of("42501"), (ErrorKind::Fatal, false));
        assert_eq!(of("25006"), (ErrorKind::Fatal, false));
        assert_eq!(of("08006"), (ErrorKind::Connection, true));
        assert_eq!(of("57P01"), (ErrorKind::Connection, true));
        assert_eq!(of("40P01"), (ErrorKind::Query, true));
        assert_eq!(of("53100"), (ErrorKind::Query, true));
        assert_eq!(of("26000"), (ErrorKind::Query, true));
        assert_eq!(of("22021"), (ErrorKind::Invalid, false));
        assert_eq!(of("XX000"), (ErrorKind::Query, false));
    }

    #[test]
    fn only_what_may_have_taken_effect_is_unknown() {
        let kind = |error| unrepeatable(error, About::Queue).kind();
        assert_eq!(kind(ClientError::Lost("gone".into())), ErrorKind::Unknown);
        assert_eq!(kind(ClientError::Unreachable("gone".into())), ErrorKind::Connection);
        assert_eq!(kind(ClientError::PoolExhausted("busy".into())), ErrorKind::Fatal);
    }
}
