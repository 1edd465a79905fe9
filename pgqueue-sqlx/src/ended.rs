//! Dropping what would spawn when it is dropped.

use std::sync::LazyLock;

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
