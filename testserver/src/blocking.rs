use crate::{Error, Result};

/// Runs `work` where it may block.
///
/// Dropping the future does not interrupt it: a conversation with the watchdog is never left half-way. What blocks here
/// has a patience of its own, because a runtime waits for it when it shuts down.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::Interrupted),
        },
    }
}
