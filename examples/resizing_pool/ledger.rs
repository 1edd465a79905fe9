//! [`Ledger`]: which worker handled what.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use pgqueue_core::MessageId;
use serde::Serialize;

/// Written by all workers, each entry before the queue hears of it.
#[derive(Default)]
pub(crate) struct Ledger(Mutex<Book>);

#[derive(Default)]
pub(crate) struct Book {
    /// The workers in the order in which they started.
    pub(crate) workers: Vec<Record>,
    /// How often each message was handled.
    pub(crate) handled: HashMap<MessageId, usize>,
    /// How many entries there are.
    entries: usize,
    /// What the worker that crashed had handled and not answered.
    pub(crate) in_hand: Option<MessageId>,
}

/// What one worker did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Record {
    pub(crate) handled: usize,
    pub(crate) ended: Option<Ended>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Ended {
    /// The pool asked it to.
    Stopped,
    Crashed,
}

impl Ledger {
    /// Begins the record of one more worker, and returns its number, from 1.
    pub(crate) fn start_worker(&self) -> usize {
        let mut book = self.book();
        book.workers.push(Record { handled: 0, ended: None });
        book.workers.len()
    }

    /// Ends the record of a worker, and returns how many messages it handled.
    pub(crate) fn end_worker(&self, worker: usize, ended: Ended) -> usize {
        let mut book = self.book();
        let record = &mut book.workers[worker - 1];
        record.ended = Some(ended);
        record.handled
    }

    /// Enters that a worker has handled a message, and returns the number of the entry, from 1.
    pub(crate) fn enter(&self, worker: usize, id: &MessageId) -> usize {
        let mut book = self.book();
        book.workers[worker - 1].handled += 1;
        *book.handled.entry(id.clone()).or_default() += 1;
        book.entries += 1;
        book.entries
    }

    /// Returns how many entries there are.
    pub(crate) fn entries(&self) -> usize {
        self.book().entries
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner) // a crash is no reason to lose the book
    }
}
