//! [`Writer`]: one hand of an instance, which writes one transaction after another.

use std::sync::Arc;

use fastrand::Rng;
use futures::future::BoxFuture;
use pgqueue_core::NewMessage;
use pgqueue_postgres::{PgQueue, Transaction};

use crate::{
    backend::Backend,
    ledger::{Ledger, Written},
    pace::Pace,
};

/// How many transactions one hand makes.
pub(crate) const TRANSACTIONS: usize = 3;

/// How many keys all share.
const KEYS: usize = 7;

/// Which of them stays open until subscriptions were inserted, if it is one of a hand that holds them open.
const OPEN_MEANWHILE: usize = TRANSACTIONS / 2;

/// For how many transactions of others one that is held stays open, at most.
const HELD: usize = 8;

pub(crate) struct Writer<C: Backend> {
    pub(crate) name: String,
    pub(crate) queue: PgQueue<C>,
    pub(crate) connection: C::Connection,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) pace: Arc<Pace>,
    /// Whether its transactions stay open while others commit.
    pub(crate) holds: bool,
    pub(crate) rng: Rng,
}

impl<C: Backend> Writer<C> {
    pub(crate) async fn write(mut self) {
        let rolled_back = (OPEN_MEANWHILE + self.rng.usize(1..TRANSACTIONS)) % TRANSACTIONS; // any other
        for transaction in 0..TRANSACTIONS {
            let parts = [self.messages(transaction, 0), self.messages(transaction, 1)];
            let hold = self.hold(transaction);
            let commits = transaction != rolled_back;
            let mut deed = Deed { queue: &self.queue, ledger: &self.ledger, parts, hold, commits, written: Vec::new() };
            C::transact(&mut self.connection, &mut deed).await;
            let written = deed.written;
            self.ledger.enter(written, commits);
            if !self.holds {
                self.pace.one_is_done();
            }
        }
    }

    /// What is waited for while a transaction is open.
    fn hold(&mut self, transaction: usize) -> BoxFuture<'static, ()> {
        let pace = Arc::clone(&self.pace);
        let more = self.rng.usize(1..=HELD);
        match transaction {
            _ if !self.holds => Box::pin(async {}),
            OPEN_MEANWHILE => Box::pin(async move { pace.inserted().await }),
            _ => Box::pin(async move { pace.pass(more).await }),
        }
    }

    fn messages(&mut self, transaction: usize, part: usize) -> Vec<NewMessage> {
        let message = |n, rng: &mut Rng| {
            let message = NewMessage::new(format!("{} {transaction}.{part}.{n}", self.name));
            match rng.usize(..=KEYS) {
                KEYS => message, // without one
                key => message.with_key(format!("key {key}")),
            }
        };
        (0..self.rng.usize(1..=2)).map(|n| message(n, &mut self.rng)).collect()
    }
}

/// What is done in one transaction.
pub(crate) struct Deed<'a, C: Backend> {
    queue: &'a PgQueue<C>,
    ledger: &'a Ledger,
    parts: [Vec<NewMessage>; 2],
    /// What is waited for between the two parts.
    hold: BoxFuture<'a, ()>,
    commits: bool,
    written: Vec<Written>,
}

impl<C: Backend> Deed<'_, C> {
    pub(crate) async fn publish_in(&mut self, transaction: &mut impl Transaction<C>) {
        let [first, second] = std::mem::take(&mut self.parts);
        let number = self.ledger.now();
        self.publish(transaction, number, first).await;
        (&mut self.hold).await;
        self.publish(transaction, number, second).await;
    }

    async fn publish(&mut self, transaction: &mut impl Transaction<C>, number: u64, messages: Vec<NewMessage>) {
        let began = self.ledger.now();
        let ids = self.queue.publish_in(transaction, "history", messages.clone()).await.unwrap();
        for (id, message) in ids.into_iter().zip(messages) {
            let payload = String::from_utf8(message.payload().to_vec()).unwrap();
            let key = message.key().map(str::to_owned);
            let transaction = (number, self.written.len());
            self.written.push(Written { id, payload, key, began, transaction, committed: None });
        }
    }

    pub(crate) fn commits(&self) -> bool {
        self.commits
    }
}
