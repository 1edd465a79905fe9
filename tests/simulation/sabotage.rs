//! [`Saboteur`]: a driver that breaks one promise, to show that the checks would notice.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use futures::{FutureExt, StreamExt, future, future::BoxFuture, stream};
use pgqueue_core::{Ack, Acker, Delivery, ErrorKind, Message, Requeue, Result, SubscriptionDriver, Wakeups};

/// Which promise is broken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Sabotage {
    /// An OK is acknowledged and not kept.
    ForgetOk,
    /// A dropped delivery is kept.
    KeepDropped,
    /// Whoever lost a lease is heard.
    HearAnybody,
    /// A delivery in hand is handed out again.
    HandOutTwice,
    /// A batch is turned around.
    Invert,
    /// An attempt is counted twice.
    Miscount,
    /// No delay is kept.
    Hurry,
    /// Nothing is announced.
    Silence,
}

/// Every sabotage, and what the checks say of it.
pub(crate) const SABOTAGES: [(Sabotage, &str); 8] = [
    (Sabotage::ForgetOk, "comes again after an OK"),
    (Sabotage::KeepDropped, "nobody got it"),
    (Sabotage::HearAnybody, "has the outcome Ok(()), not Err(LeaseLost)"),
    (Sabotage::HandOutTwice, "is still in hand"),
    (Sabotage::Invert, "overtakes message"),
    (Sabotage::Miscount, "comes as attempt 2, not 1"),
    (Sabotage::Hurry, "is not due before"),
    (Sabotage::Silence, "was never settled"),
];

pub(crate) struct Saboteur<D> {
    pub(crate) driver: D,
    pub(crate) sabotage: Option<Sabotage>,
    /// What was handed out last.
    pub(crate) last: Mutex<Option<Vec<Message>>>,
}

struct Acknowledger {
    /// `None` once it is settled.
    inner: Option<Delivery>,
    sabotage: Sabotage,
}

#[async_trait]
impl<D: SubscriptionDriver> SubscriptionDriver for Saboteur<D> {
    async fn insert_subscription(&self) -> Result<()> {
        self.driver.insert_subscription().await
    }

    async fn listen(&self) -> Result<Wakeups> {
        let wakeups = self.driver.listen().await?;
        Ok(if self.sabotage == Some(Sabotage::Silence) { stream::pending().boxed() } else { wakeups })
    }

    async fn fetch_pending(&self) -> Result<Option<Delivery>> {
        let fetched = self.driver.fetch_pending().await?;
        let Some(sabotage) = self.sabotage else { return Ok(fetched) };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let mut messages = match (&fetched, last.take()) {
            (Some(inner), _) => inner.messages().to_vec(),
            (None, Some(last)) if sabotage == Sabotage::HandOutTwice => last,
            (None, _) => return Ok(None),
        };
        match sabotage {
            Sabotage::HandOutTwice if fetched.is_some() => *last = Some(messages.clone()),
            Sabotage::Invert => messages.reverse(),
            Sabotage::Miscount => {
                messages =
                    messages.into_iter().map(|message| message.clone().with_attempt(message.attempt() + 1)).collect();
            }
            _ => {}
        }
        Delivery::batch(messages, Acknowledger { inner: fetched, sabotage }).map(Some)
    }
}

#[async_trait]
impl Acker for Acknowledger {
    async fn settle(mut self: Box<Self>, ack: Ack) -> Result<()> {
        let Some(inner) = self.inner.take() else { return Ok(()) };
        let requeue_now = Ack::Requeue(Requeue::default().with_delay(std::time::Duration::ZERO));
        let settled = match (self.sabotage, ack) {
            (Sabotage::ForgetOk, Ack::Ok) | (Sabotage::Hurry, Ack::Requeue(_)) => inner.settle(requeue_now).await,
            (_, ack) => inner.settle(ack).await,
        };
        match settled {
            Err(error) if self.sabotage == Sabotage::HearAnybody && error.kind() == ErrorKind::LeaseLost => Ok(()),
            settled => settled,
        }
    }

    fn lease_lost(&self) -> BoxFuture<'static, ()> {
        self.inner.as_ref().map_or_else(|| future::pending().boxed(), Delivery::lease_lost)
    }
}

impl Drop for Acknowledger {
    fn drop(&mut self) {
        if self.sabotage == Sabotage::KeepDropped {
            std::mem::forget(self.inner.take());
        }
    }
}
