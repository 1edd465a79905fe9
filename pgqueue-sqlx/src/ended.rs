//! Dropping what would spawn when it is dropped.

use std::{
    pin::Pin,
    sync::LazyLock,
    task::{Context, Poll},
};

use tokio::runtime::{Builder, Handle};

/// A runtime that has ended: what is spawned on it is dropped at once.
static ENDED: LazyLock<Option<Handle>> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().build().ok()?;
    let handle = runtime.handle().clone();
    runtime.shutdown_background();
    Some(handle)
});

/// Runs `close`, in which whatever sqlx spawns is dropped at once.
///
/// To take leave of the server politely, sqlx spawns a task when a listener or a connection of a pool is dropped. That
/// panics outside of a runtime, and waits without end for a server that has gone silent. In here the socket just closes.
pub(crate) fn close_at_once(close: impl FnOnce()) {
    let _context = ENDED.as_ref().map(Handle::enter);
    close();
}

/// A future that holds a connection. Dropped before its end, it closes that at once.
pub(crate) struct CloseIfDropped<F>(Option<Pin<Box<F>>>);

impl<F: Future> CloseIfDropped<F> {
    pub(crate) fn new(future: F) -> Self {
        Self(Some(Box::pin(future)))
    }
}

impl<F: Future> Future for CloseIfDropped<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Some(future) = &mut self.0 else { return Poll::Pending };
        let output = std::task::ready!(future.as_mut().poll(cx));
        self.0 = None;
        Poll::Ready(output)
    }
}

impl<F> Drop for CloseIfDropped<F> {
    fn drop(&mut self) {
        if let Some(future) = self.0.take() {
            close_at_once(|| drop(future));
        }
    }
}
