//! [`Presence`]: who is at work, for those who wait until nobody is.

use std::sync::Arc;

use tokio::sync::watch;

/// Counts a consumer among those at work, until it is dropped.
pub(crate) struct Presence(Arc<watch::Sender<usize>>);

impl Presence {
    pub(crate) fn new(consumers: &Arc<watch::Sender<usize>>) -> Self {
        consumers.send_modify(|consumers| *consumers += 1);
        Self(Arc::clone(consumers))
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.send_modify(|consumers| *consumers -= 1);
    }
}
