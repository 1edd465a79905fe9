//! [`Pace`]: what those who hold a transaction open wait for, as nobody waits for time.

use tokio::sync::watch;

pub(crate) struct Pace {
    /// How many transactions those who hurry will have done in the end.
    all: usize,
    /// And how many they have.
    done: watch::Sender<usize>,
    /// Whether the subscriptions are there that are inserted while transactions are open.
    inserted: watch::Sender<bool>,
}

impl Pace {
    pub(crate) fn new(all: usize) -> Self {
        Self { all, done: watch::Sender::new(0), inserted: watch::Sender::new(false) }
    }

    pub(crate) fn one_is_done(&self) {
        self.done.send_modify(|done| *done += 1);
    }

    /// Waits until so many more are done, or all.
    pub(crate) async fn pass(&self, more: usize) {
        let wanted = self.all.min(*self.done.borrow() + more);
        self.done.subscribe().wait_for(|done| *done >= wanted).await.unwrap();
    }

    /// Waits until half of all are done.
    pub(crate) async fn half(&self) {
        self.done.subscribe().wait_for(|done| *done >= self.all / 2).await.unwrap();
    }

    pub(crate) fn all_are_inserted(&self) {
        self.inserted.send_replace(true);
    }

    pub(crate) async fn inserted(&self) {
        self.inserted.subscribe().wait_for(|inserted| *inserted).await.unwrap();
    }
}
