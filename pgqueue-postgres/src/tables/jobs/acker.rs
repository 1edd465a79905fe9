//! [`JobAcker`]: the claim behind a delivery.

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;
use pgqueue_core::{Ack, Acker, Error, ErrorKind, Result};
use tokio::sync::watch;

use super::{consumer::Consumer, held::Claim, verdict::Verdict};
use crate::Client;

/// A claim until it is answered. Dropping it leaves the answer to the consumer's task.
pub(super) struct JobAcker<C: Client> {
    consumer: Arc<Consumer<C>>,
    lost: watch::Receiver<bool>,
    /// `None` once the answer is durable, or the job somebody else's.
    unanswered: Option<(Claim, Verdict)>,
}

impl<C: Client> JobAcker<C> {
    /// For a claim that nobody has yet: dropped, it is given back as if it had not been made.
    pub(super) fn new(consumer: Arc<Consumer<C>>, claim: Claim, lost: watch::Receiver<bool>) -> Self {
        Self { consumer, lost, unanswered: Some((claim, Verdict::GivenBack)) }
    }

    /// From here on, dropping it is an answer.
    pub(super) fn hand_out(mut self) -> Self {
        if let Some((claim, verdict)) = &mut self.unanswered {
            *verdict = Verdict::of_drop(claim.attempt, &self.consumer.table.backoff);
        }
        self
    }
}

fn unknown(error: Error) -> Error {
    let message = "the answer may have taken effect, and else is repeated while the job is not somebody else's";
    Error::new(ErrorKind::Unknown, message).with_source(error)
}

#[async_trait]
impl<C: Client> Acker for JobAcker<C> {
    async fn settle(mut self: Box<Self>, ack: Ack) -> Result<()> {
        let Some((claim, unanswered)) = &mut self.unanswered else { return Ok(()) };
        *unanswered = Verdict::of(ack, claim.attempt, &self.consumer.table.backoff)?;
        let answer = (claim.clone(), unanswered.clone());
        match self.consumer.begin_answer(&answer.0) {
            Some(true) => {}
            Some(false) => {
                self.unanswered = None;
                return Err(self.consumer.lease_lost());
            }
            None => return Err(Error::new(ErrorKind::Unknown, "the consumer ended before the answer was durable")),
        }
        // Whatever keeps this from coming to its end, the consumer's task repeats it; once it has taken effect it is refused.
        let settled = self.consumer.settle(std::slice::from_ref(&answer)).await;
        let is_settled = settled.map_err(|error| if error.is_transient() { unknown(error) } else { error })? > 0;
        self.unanswered = None;
        if is_settled { Ok(()) } else { Err(self.consumer.lease_lost()) }
    }

    fn lease_lost(&self) -> BoxFuture<'static, ()> {
        let mut lost = self.lost.clone();
        Box::pin(async move {
            if lost.wait_for(|lost| *lost).await.is_err() {
                std::future::pending::<()>().await; // settled: it says nothing any more
            }
        })
    }
}

impl<C: Client> Drop for JobAcker<C> {
    fn drop(&mut self) {
        if let Some((claim, verdict)) = self.unanswered.take() {
            self.consumer.leave_answer(claim, verdict);
        }
    }
}
