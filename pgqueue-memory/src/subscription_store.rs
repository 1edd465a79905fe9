//! The queue as a [`SubscriptionStore`]: its own methods, behind the trait.

use std::sync::Arc;

use async_trait::async_trait;
use pgqueue_core::{Result, Subscription, SubscriptionDriver, SubscriptionStats, SubscriptionStore};

use crate::queue::MemoryQueue;

#[async_trait]
impl SubscriptionStore for MemoryQueue {
    fn consumer(&self, subscription: Subscription) -> Arc<dyn SubscriptionDriver> {
        Arc::new(self.subscription(subscription))
    }

    async fn subscriptions(&self) -> Result<Vec<Subscription>> {
        self.subscriptions().await
    }

    async fn find_subscription(&self, name: &str) -> Result<Option<Subscription>> {
        self.find_subscription(name).await
    }

    async fn insert_subscription(&self, subscription: &Subscription) -> Result<()> {
        self.insert_subscription(subscription).await
    }

    async fn delete_subscription(&self, name: &str) -> Result<()> {
        self.delete_subscription(name).await
    }

    async fn stats(&self, name: &str) -> Result<SubscriptionStats> {
        self.stats(name).await
    }
}
