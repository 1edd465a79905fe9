//! [`SubscriptionStore`]: where subscriptions are kept, whatever the driver.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{HorizonHolder, Result, Subscription, SubscriptionDriver, SubscriptionStats};

/// A queue, as somebody sees it who looks after its subscriptions.
#[async_trait]
pub trait SubscriptionStore: Send + Sync + 'static {
    /// Makes a consumer of a subscription, which it does not insert.
    fn consumer(&self, subscription: Subscription) -> Arc<dyn SubscriptionDriver>;

    /// Returns all subscriptions with their options.
    ///
    /// # Errors
    /// What the store says.
    ///
    /// # Cancel safety
    /// The future changes nothing.
    async fn subscriptions(&self) -> Result<Vec<Subscription>>;

    /// Returns a subscription with its options, if there is one of this name.
    ///
    /// # Errors
    /// What the store says.
    ///
    /// # Cancel safety
    /// The future changes nothing.
    async fn find_subscription(&self, name: &str) -> Result<Option<Subscription>>;

    /// Inserts a subscription, or takes the new options of one that exists.
    ///
    /// # Errors
    /// As [`SubscriptionDriver::insert_subscription`].
    ///
    /// # Cancel safety
    /// Dropping the future means either outcome.
    async fn insert_subscription(&self, subscription: &Subscription) -> Result<()>;

    /// Deletes a subscription with all it holds.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if there is none of this name.
    ///
    /// # Cancel safety
    /// Dropping the future means either outcome.
    async fn delete_subscription(&self, name: &str) -> Result<()>;

    /// Returns how a subscription stands.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if there is none of this name.
    ///
    /// # Cancel safety
    /// The future changes nothing.
    async fn stats(&self, name: &str) -> Result<SubscriptionStats>;

    /// Returns who keeps the store from freeing space, if anybody does.
    ///
    /// # Errors
    /// What the store says.
    ///
    /// # Cancel safety
    /// The future changes nothing.
    async fn horizon_holder(&self) -> Result<Option<HorizonHolder>> {
        Ok(None)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: SubscriptionStore + ?Sized> SubscriptionStore for Arc<S> {
    fn consumer(&self, subscription: Subscription) -> Arc<dyn SubscriptionDriver> {
        (**self).consumer(subscription)
    }

    async fn subscriptions(&self) -> Result<Vec<Subscription>> {
        (**self).subscriptions().await
    }

    async fn find_subscription(&self, name: &str) -> Result<Option<Subscription>> {
        (**self).find_subscription(name).await
    }

    async fn insert_subscription(&self, subscription: &Subscription) -> Result<()> {
        (**self).insert_subscription(subscription).await
    }

    async fn delete_subscription(&self, name: &str) -> Result<()> {
        (**self).delete_subscription(name).await
    }

    async fn stats(&self, name: &str) -> Result<SubscriptionStats> {
        (**self).stats(name).await
    }

    async fn horizon_holder(&self) -> Result<Option<HorizonHolder>> {
        (**self).horizon_holder().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_stores_are_stores() {
        fn is_store<S: SubscriptionStore>() {}
        is_store::<Arc<dyn SubscriptionStore>>();
    }
}
