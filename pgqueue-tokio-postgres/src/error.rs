//! How the errors of tokio-postgres and deadpool become the queue's.

use std::error::Error as _;
use std::io;

use deadpool_postgres::{HookError, PoolError, TimeoutType};
use pgqueue_postgres::ClientError;
use tokio_postgres::Error;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why the pool gave no connection.
pub(crate) fn pooling(error: PoolError) -> ClientError {
    match error {
        PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => connecting(error),
        PoolError::Timeout(TimeoutType::Wait) => ClientError::PoolExhausted(error.into()),
        PoolError::Timeout(TimeoutType::Create | TimeoutType::Recycle)
        | PoolError::PostCreateHook(HookError::Message(_)) => ClientError::Unreachable(error.into()),
        PoolError::Closed | PoolError::NoRuntimeSpecified => ClientError::Unusable(error.into()),
    }
}

/// Why there is no connection.
pub(crate) fn connecting(error: Error) -> ClientError {
    classify(error, ClientError::Unreachable)
}

/// Why a call on a connection failed.
pub(crate) fn calling(error: Error) -> ClientError {
    classify(error, ClientError::Lost)
}

fn classify(error: Error, broken: fn(BoxError) -> ClientError) -> ClientError {
    if let Some(refusal) = error.as_db_error() {
        let (code, message) = (refusal.code().code().to_owned(), refusal.message().to_owned());
        return ClientError::Refused { code, message, source: error.into() };
    }
    if error.is_closed() || is_broken(&error) { broken(error.into()) } else { ClientError::Unusable(error.into()) }
}

/// Returns whether the network failed. Certificates that do not hold, and what cannot be written or read, come as I/O errors
/// too, but of these kinds.
fn is_broken(error: &Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| !matches!(cause.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput))
}
