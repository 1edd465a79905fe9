//! [`Observed`]: a driver that records what passes between it and core, and changes nothing.

use std::future::pending;

use async_trait::async_trait;
use futures::{FutureExt, future, future::BoxFuture};
use pgqueue_core::{Ack, Acker, Delivery, Error, Result, Subscription, SubscriptionDriver, Wakeups};
use tokio::sync::oneshot;

use crate::{
    consumer::Stage,
    event::{DeliveryEvent, What},
};

pub(crate) struct Observed<D> {
    pub(crate) driver: D,
    pub(crate) options: Subscription,
    pub(crate) consumer: u32,
    pub(crate) stage: Stage,
}

struct ObservedAcker {
    /// `None` once it is settled.
    inner: Option<Delivery>,
    delivery: u32,
    stage: Stage,
}

#[async_trait]
impl<D: SubscriptionDriver> SubscriptionDriver for Observed<D> {
    async fn insert_subscription(&self) -> Result<()> {
        self.driver.insert_subscription().await?;
        self.stage.history.record(What::Inserted(self.options.clone()));
        Ok(())
    }

    async fn listen(&self) -> Result<Wakeups> {
        self.driver.listen().await
    }

    async fn fetch_pending(&self) -> Result<Option<Delivery>> {
        if self.stage.history.has_spun() {
            pending::<()>().await; // lets time go on, and the run end
        }
        let Some(inner) = self.driver.fetch_pending().await? else { return Ok(None) };
        let messages = inner.messages().to_vec();
        let delivery = self.stage.history.claimed(self.consumer, &messages);
        Delivery::batch(messages, ObservedAcker { inner: Some(inner), delivery, stage: self.stage.clone() }).map(Some)
    }
}

#[async_trait]
impl Acker for ObservedAcker {
    async fn settle(mut self: Box<Self>, ack: Ack) -> Result<()> {
        let Some(inner) = self.inner.take() else { return Ok(()) };
        let settled = inner.settle(ack.clone()).await;
        let outcome = settled.as_ref().map(drop).map_err(Error::kind);
        self.stage.history.of_delivery(self.delivery, DeliveryEvent::Settled(ack, outcome));
        settled
    }

    /// Several leases may be lost at once: the crew decides who hears of it first.
    fn lease_lost(&self) -> BoxFuture<'static, ()> {
        let Some(lost) = self.inner.as_ref().map(Delivery::lease_lost) else { return future::ready(()).boxed() };
        let (mut tell, told) = oneshot::channel();
        self.stage.crew.spawn(async move {
            tokio::select! {
                biased;
                () = lost => drop(tell.send(())),
                () = tell.closed() => {}
            }
        });
        told.map(drop).boxed()
    }
}

impl Drop for ObservedAcker {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take() {
            drop(inner);
            self.stage.history.of_delivery(self.delivery, DeliveryEvent::Dropped);
        }
    }
}
