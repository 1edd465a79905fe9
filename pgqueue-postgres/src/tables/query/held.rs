//! [`HeldDelivery`]: a delivery that is a transaction.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use pgqueue_core::{Ack, Acker, Delivery, Error, ErrorKind, Message, Operation, Requeue, Result};

use super::{
    Command, PendingQuery,
    driver::{Inner, Slot},
    keys::Keys,
    locks::ask,
};
use crate::{
    Client, OwnedTransaction, Parameter,
    error::unrepeatable,
    tables::TIME_LIMIT,
    value::{millis, storable},
};

/// By which the answer finds out whether the transaction is still the one that holds the rows.
const SAVEPOINT: &str = "savepoint pgqueue_delivery";
const RELEASE: &str = "release savepoint pgqueue_delivery";

/// A delivery of rows that its transaction holds, for handlers who work in that transaction: what they write commits with their
/// OK, or not at all.
///
/// [`Job::take_delivery`](pgqueue_core::Job::take_delivery) gives a worker's handler the delivery, and
/// [`from_delivery`](Self::from_delivery) makes this of it. Dropping it rolls back, and the rows are pending again.
#[must_use = "a dropped delivery is rolled back: settle it with `ok`, `requeue` or `settle`"]
pub struct HeldDelivery<C: Client> {
    inner: Arc<Inner<C>>,
    /// `None` once it is about to be answered.
    transaction: Option<C::Transaction>,
    messages: Vec<Message>,
    keys: Keys,
    /// Whether the handler has had the transaction.
    is_lent: bool,
    /// Frees the place of this delivery once its transaction has ended. Declared last: that is dropped before.
    slot: Slot<C>,
}

impl<C: Client> HeldDelivery<C> {
    pub(super) fn new(
        inner: Arc<Inner<C>>,
        transaction: C::Transaction,
        messages: Vec<Message>,
        keys: Keys,
        slot: Slot<C>,
    ) -> Self {
        Self { inner, transaction: Some(transaction), messages, keys, is_lent: false, slot }
    }

    /// Takes over a delivery that a [`QueryDriver`](crate::QueryDriver) of this client handed out.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) if another driver did. The delivery is dropped then, and so requeued.
    pub fn from_delivery(delivery: Delivery) -> Result<Self> {
        let foreign = |_| {
            let message = "the delivery is not one of a query's driver over this client";
            Error::new(ErrorKind::Invalid, message).during(Operation::Handle)
        };
        delivery.try_into_acker::<Self>().map(|held| *held).map_err(foreign)
    }

    /// Returns the message, of a batch the first.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.messages[0]
    }

    /// Returns all messages, in order.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Lends the transaction, of which what you write is part. Leave its end to the answer; savepoints of your own are fine.
    ///
    /// # Errors
    /// What the server says: a savepoint is made the first time, by which the answer finds out whether you ended the
    /// transaction.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn transaction(&mut self) -> Result<&mut C::Transaction> {
        if !self.is_lent {
            self.run(SAVEPOINT).await?;
            self.is_lent = true;
        }
        self.transaction.as_mut().ok_or_else(answered)
    }

    /// Runs a statement without arguments in the transaction.
    async fn run(&mut self, statement: &str) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        let transaction = self.transaction.as_mut().ok_or_else(answered)?;
        let done = transaction.execute(statement, &[]);
        ask(&inner, done).await.map(drop)
    }

    /// Finds out whether the handler, to whom it was lent, has ended the transaction: what holds the rows would be gone.
    async fn ensure_open(&mut self) -> Result<()> {
        if !self.is_lent {
            return Ok(());
        }
        self.run(RELEASE).await.map_err(|error| match error.kind() {
            ErrorKind::Connection | ErrorKind::Timeout => error,
            _ => {
                let message = "the handler has ended the delivery's transaction, or a statement failed in it; leave its end to the \
                               answer, and try what may fail behind a savepoint";
                Error::new(ErrorKind::Invalid, message).with_source(error)
            }
        })
    }

    /// Answers OK: runs the statement of an OK, and commits.
    ///
    /// # Errors
    /// As [`settle`](Self::settle).
    ///
    /// # Cancel safety
    /// As [`settle`](Self::settle).
    pub async fn ok(self) -> Result<()> {
        self.settle(Ack::Ok).await
    }

    /// Answers Requeue: runs the statement of a Requeue, if there is one, and commits what the handler wrote.
    ///
    /// # Errors
    /// As [`settle`](Self::settle).
    ///
    /// # Cancel safety
    /// As [`settle`](Self::settle).
    pub async fn requeue(self) -> Result<()> {
        self.settle(Ack::requeue()).await
    }

    /// Answers, and commits.
    ///
    /// # Errors
    /// [`LeaseLost`](ErrorKind::LeaseLost) if the statement touched no row: somebody else took them.
    /// [`NotFound`](ErrorKind::NotFound) if it touched none as the subscription [does not exist](PendingQuery::with_exists).
    /// [`Invalid`](ErrorKind::Invalid) if it touched more rows than were delivered, if the handler ended the transaction, and
    /// for a Reject where no statement says what that is.
    /// [`Unknown`](ErrorKind::Unknown) if the connection was lost while it committed. Else what the server says. All but
    /// `Unknown` roll back.
    ///
    /// # Cancel safety
    /// Dropping the future means either outcome: the answer took effect, or all was rolled back.
    pub async fn settle(self, ack: Ack) -> Result<()> {
        self.answer(ack).await.map_err(|error| error.during(Operation::Settle))
    }

    async fn answer(mut self, ack: Ack) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        let is_done = !matches!(ack, Ack::Requeue(_));
        let commands = self.commands(&inner.query, ack)?;
        let date = inner.statements.date_ack.iter().map(|date| (date.clone(), vec![self.keys.all().clone()], None));
        let mut steps: Vec<Step> = date.chain(commands).collect();
        if steps.is_empty() {
            // A transaction in which a statement failed would be rolled back, and the server would not call it an error.
            steps.push(("select".to_owned(), vec![], None));
        }
        self.ensure_open().await?;
        for (statement, bound, rows) in steps {
            let transaction = self.transaction.as_mut().ok_or_else(answered)?;
            let touched = ask(&inner, transaction.execute(&statement, &bound)).await?;
            let Some(rows) = rows else { continue };
            if touched == 0 {
                return Err(self.lost().await);
            } else if touched > rows as u64 {
                return Err(too_many(&inner.query.name, touched, rows));
            }
        }
        let Some(transaction) = self.transaction.take() else { return Err(answered()) };
        let committed = tokio::time::timeout(TIME_LIMIT, transaction.commit()).await;
        if is_done && matches!(committed, Ok(Ok(()))) {
            self.slot.note_done();
        }
        committed.map_or_else(
            |_| {
                let message =
                    format!("the commit was not answered within {TIME_LIMIT:?}; whether it took effect is not known");
                Err(Error::new(ErrorKind::Unknown, message))
            },
            |committed| committed.map_err(|error| unrepeatable(error, inner.about())),
        )
    }

    /// Says why an answer touched no row.
    async fn lost(&mut self) -> Error {
        let inner = Arc::clone(&self.inner);
        if let (Some(exists), Some(transaction)) = (&inner.statements.exists, &mut self.transaction) {
            let answer = ask(&inner, transaction.query(exists, &inner.bound([]))).await;
            if let Err(error) = answer.and_then(|answer| inner.ensure_exists(&answer)) {
                return error;
            }
        }
        lost(&inner.query.name)
    }

    /// What is run for an answer, with what is bound to it.
    fn commands(&self, query: &PendingQuery<C::Row>, ack: Ack) -> Result<Vec<Step>> {
        let step = |command: &Command, purpose: &str, (keys, rows): (Parameter, usize), given: &[Parameter]| {
            let statement = command.labelled(purpose, &keys);
            (statement, command.bound(std::iter::once(keys).chain(given.iter().cloned())), Some(rows))
        };
        let all = || (self.keys.all().clone(), self.messages.len());
        match ack {
            Ack::Ok => Ok(vec![step(&query.ok, "OK", all(), &[])]),
            Ack::Requeue(Requeue { delay, reason, .. }) => {
                let reason = Parameter::nullable(reason.map(storable));
                let last = query.last_attempt();
                let is_last = |at: usize| last.is_some_and(|(attempts, _)| self.attempt(at) >= attempts);
                let rejected = last
                    .zip(self.keys.at(is_last))
                    .map(|((_, reject), keys)| step(reject, "Reject", keys, std::slice::from_ref(&reason)));
                let others = self.keys.at(|at| !is_last(at));
                if others.is_some() && delay.is_some() && query.requeue.is_none() {
                    return Err(unsaid(&query.name, "a Requeue with a delay", "with_requeue"));
                }
                let attempt = (0..self.messages.len()).find(|at| !is_last(*at)).map_or(1, |at| self.attempt(at));
                let delay = delay.or_else(|| query.backoff.map(|backoff| backoff.delay(attempt)));
                let requeued = query.requeue.as_ref().zip(others).map(|(requeue, keys)| {
                    step(requeue, "Requeue", keys, &[Parameter::nullable(delay.map(millis)), reason.clone()])
                });
                Ok(rejected.into_iter().chain(requeued).collect())
            }
            Ack::Reject { reason } => {
                let unsaid = || unsaid(&query.name, "a Reject", "with_reject");
                let reject = query.reject.as_ref().ok_or_else(unsaid)?;
                Ok(vec![step(reject, "Reject", all(), &[Parameter::new(storable(reason))])])
            }
            _ => Err(Error::new(ErrorKind::Invalid, "the driver of a query does not know such an answer")),
        }
    }

    fn attempt(&self, at: usize) -> u32 {
        self.messages.get(at).map_or(1, Message::attempt)
    }
}

/// A statement of an answer, with what is bound to it, and how many rows it may touch at most and must touch one of.
type Step = (String, Vec<Parameter>, Option<usize>);

fn unsaid(name: &str, what: &str, setter: &str) -> Error {
    Error::new(
        ErrorKind::Invalid,
        format!("{name:?} does not say what {what} does: give it a statement, with `{setter}`"),
    )
}

pub(super) fn lost(name: &str) -> Error {
    let message = format!("the answer touched no row of {name:?}: somebody else took what was delivered");
    Error::new(ErrorKind::LeaseLost, message)
}

fn too_many(name: &str, touched: u64, delivered: usize) -> Error {
    let message = format!(
        "the answer touched {touched} rows of {name:?}, of which {delivered} were delivered, and is rolled back: is the key unique, and \
         does the statement ask for any($1)?"
    );
    Error::new(ErrorKind::Invalid, message)
}

fn answered() -> Error {
    Error::new(ErrorKind::Fatal, "the delivery was answered")
}

#[async_trait]
impl<C: Client> Acker for HeldDelivery<C> {
    async fn settle(self: Box<Self>, ack: Ack) -> Result<()> {
        self.answer(ack).await
    }
}

impl<C: Client> Drop for HeldDelivery<C> {
    fn drop(&mut self) {
        if let Some(transaction) = self.transaction.take() {
            drop(transaction);
            self.slot.note_rollback();
        }
    }
}

impl<C: Client> fmt::Debug for HeldDelivery<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldDelivery").field("messages", &self.messages).finish_non_exhaustive()
    }
}
