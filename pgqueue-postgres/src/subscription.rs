//! [`PgSubscription`]: one consumer of a subscription, the driver itself.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use pgqueue_core::{Delivery, Result, Subscription, SubscriptionDriver, Wakeups};

use crate::{
    Client, PgQueue,
    consumer::{self, Consumer},
    queue::Shared,
};

/// One consumer of one subscription, as [`PgQueue::subscription`](crate::PgQueue::subscription) makes it: the driver for
/// [`subscribe`](pgqueue_core::subscribe).
///
/// It takes messages in advance ([`Subscription::prefetch`]), merges answers that come at the same time into one statement,
/// and beats for all it has, on tokio tasks that begin with the first fetch and end when it and its deliveries are gone. The consumers
/// of one queue handle share one more, which looks and beats for those that are idle, in one statement every other second, and does
/// the queue's housekeeping. What it has not handed out goes back to others at once when it is dropped;
/// before the process ends, wait for that: [`consumers_gone`](crate::PgQueue::consumers_gone).
///
/// It needs up to three connections of the pool at a time, and all that share a handle three more, beside those that handlers hold: where
/// they hold all, it cannot beat.
pub struct PgSubscription<C: Client> {
    consumer: Arc<Consumer<C>>,
}

impl<C: Client> PgSubscription<C> {
    pub(crate) fn new(shared: Arc<Shared<C>>, wanted: Subscription) -> Self {
        Self { consumer: Consumer::new(shared, wanted) }
    }

    /// Returns the queue it belongs to.
    #[must_use]
    pub fn queue(&self) -> PgQueue<C> {
        PgQueue::from_shared(Arc::clone(&self.consumer.shared))
    }

    /// Lets this consumer die as its process would: nothing is given back, and dropping its deliveries releases nothing. They go
    /// to others after [`Subscription::lease`]. For tests of what happens then.
    pub fn crash(&self) {
        self.consumer.crash();
    }
}

#[async_trait]
impl<C: Client> SubscriptionDriver for PgSubscription<C> {
    async fn insert_subscription(&self) -> Result<()> {
        self.consumer.shared.insert_subscription(&self.consumer.wanted).await
    }

    async fn listen(&self) -> Result<Wakeups> {
        consumer::wakeups(Arc::clone(&self.consumer)).await
    }

    async fn fetch_pending(&self) -> Result<Option<Delivery>> {
        self.consumer.fetch().await
    }

    fn fetch_ready(&self) -> Result<Option<Delivery>> {
        self.consumer.fetch_ready()
    }
}

impl<C: Client> Drop for PgSubscription<C> {
    fn drop(&mut self) {
        self.consumer.close();
    }
}

impl<C: Client> fmt::Debug for PgSubscription<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgSubscription").field("wanted", &self.consumer.wanted).finish_non_exhaustive()
    }
}
