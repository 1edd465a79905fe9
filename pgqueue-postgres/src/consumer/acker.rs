//! [`PgAcker`]: the lease behind a delivery.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::future::BoxFuture;
use pgqueue_core::{Ack, Acker, Error, ErrorKind, Operation, Requeue, Result};
use tokio::sync::oneshot;

use super::{
    Consumer, Phase,
    held::{Answer, Hand, InDoubt, Verdict},
};
use crate::{Client, Parameter, Transaction, error::unrepeatable, statement, value::RowExt};

pub(crate) struct PgAcker<C: Client> {
    consumer: Arc<Consumer<C>>,
    /// `None` once it is answered.
    hand: Option<Hand>,
}

impl<C: Client> PgAcker<C> {
    pub(super) fn new(consumer: Arc<Consumer<C>>, hand: Hand) -> Self {
        Self { consumer, hand: Some(hand) }
    }

    pub(crate) fn belongs_to(&self, shared: &Arc<crate::queue::Shared<C>>) -> bool {
        Arc::ptr_eq(&self.consumer.shared.client, &shared.client)
    }

    /// Hands the answer to the task that settles.
    fn answer(&mut self, verdict: Verdict, reply: Option<oneshot::Sender<Result<()>>>) {
        let Some(Hand { lease, place, ids }) = self.hand.take() else { return };
        let mut state = self.consumer.lock();
        if state.phase == Phase::Over {
            return;
        }
        let mut answer = Answer { lease, place, ids, verdict, reply };
        if state.held.leases.contains_key(&lease) {
            state.held.answer(answer);
        } else {
            state.held.out -= 1;
            super::held::reply(&mut answer, Err(Error::lease_lost(self.consumer.wanted.name())));
        }
        drop(state);
        self.consumer.to_settle.notify_one();
    }

    /// Answers OK inside of a transaction of the caller's.
    pub(crate) async fn ok_in(mut self, transaction: &mut dyn Transaction<C>) -> Result<()> {
        let Some(Hand { lease, place, ids }) = self.hand.take() else { return Ok(()) };
        let array = Parameter::array(ids.iter().copied().map(Some));
        // Also if this future is dropped: the transaction may commit all the same.
        let answer = InDoubt { lease, place, ids, transaction: None };
        let mut doubt = Doubt { consumer: &self.consumer, answer: Some(answer) };
        let parameters = [Parameter::new(lease.number), Parameter::new(lease.token), array?];
        let answer = transaction.query(statement::SETTLE_IN, &parameters).await;
        let rows = answer.map_err(|error| unrepeatable(error, self.consumer.about()))?;
        let settled = rows.first().map_or(Ok(None), |row| row.read::<i64>(0))?;
        let lost = || Error::lease_lost(self.consumer.wanted.name()).during(Operation::Settle);
        if let Some(answer) = &mut doubt.answer {
            answer.transaction = settled;
        }
        settled.map(drop).ok_or_else(lost)
    }
}

/// Lets the task that settles find out what became of the answer, once it was given.
struct Doubt<'a, C: Client> {
    consumer: &'a Consumer<C>,
    answer: Option<InDoubt>,
}

impl<C: Client> Drop for Doubt<'_, C> {
    fn drop(&mut self) {
        if let Some(answer) = self.answer.take() {
            self.consumer.doubt(answer);
        }
    }
}

#[async_trait]
impl<C: Client> Acker for PgAcker<C> {
    async fn settle(mut self: Box<Self>, ack: Ack) -> Result<()> {
        let verdict = match ack {
            Ack::Ok => Verdict::Ok,
            Ack::Requeue(Requeue { delay, reason, .. }) => Verdict::Requeue { delay, reason },
            Ack::Reject { reason } => Verdict::Reject { reason },
            _ => return Err(Error::new(ErrorKind::Invalid, "an answer that this driver does not know")),
        };
        let (reply, settled) = oneshot::channel();
        self.answer(verdict, Some(reply));
        let gone = || Err(Error::new(ErrorKind::Unknown, "the consumer ended before the answer was durable"));
        settled.await.unwrap_or_else(|_| gone())
    }

    fn lease_lost(&self) -> BoxFuture<'static, ()> {
        let lost = self.hand.as_ref().map(|hand| self.consumer.lock().held.watch(hand.lease));
        Box::pin(async move {
            let is_lost = match lost {
                Some(Some(mut lost)) => lost.wait_for(|lost| *lost).await.is_ok(),
                Some(None) => true,
                None => false,
            };
            if !is_lost {
                std::future::pending::<()>().await; // settled: it says nothing any more
            }
        })
    }
}

impl<C: Client> Drop for PgAcker<C> {
    fn drop(&mut self) {
        let reason = Some("dropped unsettled".to_owned());
        self.answer(Verdict::Requeue { delay: Some(Duration::ZERO), reason }, None);
    }
}
