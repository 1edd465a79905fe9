//! [`Audit`]: whether every message was handled, and none more often than it had to be.

use std::collections::HashSet;

use pgqueue_core::MessageId;
use serde::Serialize;

use crate::ledger::{Book, Record};

#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Audit {
    published: usize,
    /// Messages that were handled, once or more.
    handled: usize,
    /// Messages that nobody handled.
    missing: usize,
    /// Messages that were handled again because the worker that had them crashed before it answered.
    again: usize,
    /// Messages that were handled again for no such reason.
    doubled: usize,
    /// Messages that the queue thinks are not done.
    unsettled: u64,
    /// Crashes that the pool has seen.
    crashes: u64,
    /// What each worker did, in the order in which they started.
    workers: Vec<Record>,
}

impl Audit {
    pub(crate) fn new(published: &[MessageId], book: &Book, unsettled: u64, crashes: u64) -> Self {
        let ids: HashSet<_> = published.iter().collect();
        let repeated = book.handled.iter().filter(|(_, times)| **times > 1);
        // Of the one in hand, once more is all that there is a reason for.
        let (again, doubled): (Vec<_>, Vec<_>) =
            repeated.partition(|(id, times)| book.in_hand.as_ref() == Some(id) && **times == 2);
        Self {
            published: ids.len(),
            handled: book.handled.len(),
            missing: ids.iter().filter(|id| !book.handled.contains_key(**id)).count(),
            again: again.len(),
            doubled: doubled.len(),
            unsettled,
            crashes,
            workers: book.workers.clone(),
        }
    }

    /// Whether all is as it should be after one crash.
    pub(crate) fn is_good(&self) -> bool {
        let Self { published, handled, missing, again, doubled, unsettled, crashes, workers: _ } = self;
        handled == published && (*missing, *again, *doubled, *unsettled, *crashes) == (0, 1, 0, 0, 1)
    }
}
