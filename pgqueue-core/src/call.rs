//! Every call from core into a driver or a handler: panics become errors, and what never returns meets a time limit.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use futures::FutureExt;

use crate::{Error, ErrorKind, Operation, Result};

/// Makes `call`; a panic in it becomes an [`ErrorKind::Panic`] with its message.
///
/// The unwind safety asserted here and below is the driver's and the handler's: what they left behind is dropped.
pub(crate) fn catch_panic_now<T>(operation: Operation, call: impl FnOnce() -> Result<T>) -> Result<T> {
    let caught = catch_unwind(AssertUnwindSafe(call));
    caught.unwrap_or_else(|payload| Err(Error::panic(payload))).map_err(|error| error.during(operation))
}

/// Awaits `call`; a panic in it becomes an [`ErrorKind::Panic`] with its message.
pub(crate) async fn catch_panic<T>(operation: Operation, call: impl Future<Output = Result<T>>) -> Result<T> {
    let caught = AssertUnwindSafe(call).catch_unwind().await;
    caught.unwrap_or_else(|payload| Err(Error::panic(payload))).map_err(|error| error.during(operation))
}

/// Like [`catch_panic`], for at most `limit`.
pub(crate) async fn call_driver<T>(
    operation: Operation,
    limit: Duration,
    call: impl Future<Output = Result<T>>,
) -> Result<T> {
    // Caught as a whole, since a call that met its limit may panic when it is dropped.
    catch_panic(operation, async {
        tokio::time::timeout(limit, call).await.unwrap_or_else(|_| {
            let kind = match operation {
                Operation::Settle => ErrorKind::Unknown,
                _ => ErrorKind::Timeout,
            };
            Err(Error::new(kind, format!("the driver did not answer within {limit:?}")))
        })
    })
    .await
}
