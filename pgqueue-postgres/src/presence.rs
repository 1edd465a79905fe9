//! [`Presence`]: who is there, for those who wait until nobody is, or somebody.

use std::sync::Arc;

use tokio::sync::watch;

/// Counts somebody among those who are there, until it is dropped.
pub(crate) struct Presence(Arc<watch::Sender<usize>>);

impl Presence {
    pub(crate) fn new(present: &Arc<watch::Sender<usize>>) -> Self {
        present.send_modify(|present| *present += 1);
        Self(Arc::clone(present))
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.send_modify(|present| *present -= 1);
    }
}
