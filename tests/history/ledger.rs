//! [`Ledger`]: what was written, and what certainly happened before what.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use pgqueue_core::MessageId;

/// A message that was published.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) id: MessageId,
    pub(crate) payload: String,
    pub(crate) key: Option<String>,
    /// Before it was published.
    pub(crate) began: u64,
    /// Its transaction, by the moment at which that began, and its place in it.
    pub(crate) transaction: (u64, usize),
    /// After its transaction had committed; `None` if that was rolled back.
    pub(crate) committed: Option<u64>,
}

impl Written {
    /// Whether this must come before a message of the same key: it does in its transaction, or it had been committed already.
    pub(crate) fn precedes(&self, other: &Self) -> bool {
        let ((mine, place), (others, others_place)) = (self.transaction, other.transaction);
        if mine == others { place < others_place } else { self.committed < Some(other.began) }
    }
}

/// All that was written, with moments of one clock, which counts them.
#[derive(Default)]
pub(crate) struct Ledger {
    clock: AtomicU64,
    committed: Mutex<Vec<Written>>,
    rolled_back: AtomicU64,
}

impl Ledger {
    /// This moment. No other is the same.
    pub(crate) fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// Notes what a transaction wrote, which has just ended.
    pub(crate) fn enter(&self, mut written: Vec<Written>, commits: bool) {
        if !commits {
            self.rolled_back.fetch_add(written.len() as u64, Ordering::SeqCst);
            return;
        }
        let now = self.now();
        written.iter_mut().for_each(|message| message.committed = Some(now));
        self.committed.lock().unwrap().extend(written);
    }

    /// What was committed, in the order of the commits.
    pub(crate) fn committed(&self) -> Vec<Written> {
        self.committed.lock().unwrap().clone()
    }

    /// How many messages were rolled back.
    pub(crate) fn rolled_back(&self) -> u64 {
        self.rolled_back.load(Ordering::SeqCst)
    }
}
