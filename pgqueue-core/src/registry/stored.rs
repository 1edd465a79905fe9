//! [`StoredConsumer`]: a consumer of a subscription that is stored already.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{Delivery, Error, Result, Subscription, SubscriptionDriver, SubscriptionStore, Wakeups};

/// Makes sure that its subscription is stored, and never stores it. Else a worker that is restarted would store again what
/// was deleted meanwhile, or take back what was altered.
pub(crate) struct StoredConsumer {
    store: Arc<dyn SubscriptionStore>,
    subscription: Subscription,
    consumer: Arc<dyn SubscriptionDriver>,
}

impl StoredConsumer {
    pub(crate) fn new(store: Arc<dyn SubscriptionStore>, subscription: Subscription) -> Self {
        let consumer = store.consumer(subscription.clone());
        Self { store, subscription, consumer }
    }
}

#[async_trait]
impl SubscriptionDriver for StoredConsumer {
    async fn insert_subscription(&self) -> Result<()> {
        let name = self.subscription.name();
        let stored = self.store.find_subscription(name).await?;
        stored.ok_or_else(|| Error::subscription_not_found(name))?.ensure_same_identity(&self.subscription)
    }

    async fn listen(&self) -> Result<Wakeups> {
        self.consumer.listen().await
    }

    async fn fetch_pending(&self) -> Result<Option<Delivery>> {
        self.consumer.fetch_pending().await
    }

    fn fetch_ready(&self) -> Result<Option<Delivery>> {
        self.consumer.fetch_ready()
    }
}
