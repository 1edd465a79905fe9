//! [`Kit`]: what cases are written with.

use std::{sync::Arc, time::Duration};

use pgqueue_core::{
    Backoff, ConsumeStream, Delivery, Message, MessageId, NewMessage, Subscription, SubscriptionDriver, Topic,
    subscribe,
};

use crate::{
    Harness,
    failure::{CaseResult, check_eq},
};

/// The topic that every case finds.
pub(crate) const TOPIC: &str = "topic";

/// The delay of cases about delays: short enough for real time, long enough to be told from "at once".
pub(crate) const DELAY: Duration = Duration::from_millis(300);

/// The lease of cases that wait for one to end. A machine that stalls for longer lets the heartbeat's case fail.
pub(crate) const LEASE: Duration = Duration::from_secs(2);

/// Longer than any case lasts.
pub(crate) const FOREVER: Duration = Duration::from_secs(3600);

/// The backend of one case, and the ways to use it.
pub(crate) struct Kit {
    harness: Box<dyn Harness>,
}

impl Kit {
    /// Takes a fresh backend and creates the topic.
    pub(crate) async fn new(harness: Box<dyn Harness>) -> CaseResult<Self> {
        harness.create_topic(Topic::new(TOPIC)).await?;
        Ok(Self { harness })
    }

    pub(crate) fn harness(&self) -> &dyn Harness {
        &*self.harness
    }

    /// The subscription of a case that needs but one. What it requeues comes again soon, and often enough.
    pub(crate) fn subscription(&self) -> Subscription {
        self.subscription_named("subscription")
    }

    pub(crate) fn subscription_named(&self, name: &str) -> Subscription {
        let soon = Backoff::fixed(Duration::from_millis(20)).with_max_attempts(1000);
        Subscription::new(name, TOPIC).with_backoff(soon)
    }

    /// A consumer that has inserted its subscription.
    pub(crate) async fn driver(&self, subscription: &Subscription) -> CaseResult<Arc<dyn SubscriptionDriver>> {
        let driver = self.harness.driver(subscription.clone()).await?;
        driver.insert_subscription().await?;
        Ok(driver)
    }

    /// Makes the subscription exist, without a consumer.
    pub(crate) async fn insert(&self, subscription: &Subscription) -> CaseResult {
        self.driver(subscription).await.map(drop)
    }

    /// The stream of a new consumer.
    pub(crate) async fn consume(&self, subscription: &Subscription) -> CaseResult<ConsumeStream> {
        Ok(subscribe(self.harness.driver(subscription.clone()).await?).await?)
    }

    /// Publishes texts without a key.
    pub(crate) async fn publish(
        &self,
        texts: impl IntoIterator<Item = impl Into<String>>,
    ) -> CaseResult<Vec<MessageId>> {
        self.publish_messages(texts.into_iter().map(|text| NewMessage::new(text.into())).collect()).await
    }

    /// Publishes texts of one key.
    pub(crate) async fn publish_keyed(
        &self,
        key: &str,
        texts: impl IntoIterator<Item = impl Into<String>>,
    ) -> CaseResult<Vec<MessageId>> {
        let message = |text: String| NewMessage::new(text).with_key(key);
        self.publish_messages(texts.into_iter().map(|text| message(text.into())).collect()).await
    }

    pub(crate) async fn publish_messages(&self, messages: Vec<NewMessage>) -> CaseResult<Vec<MessageId>> {
        let count = messages.len();
        let ids = self.harness.publish(TOPIC, messages).await?;
        check_eq!(ids.len(), count, "the number of ids of published messages");
        Ok(ids)
    }
}

/// The payloads of a delivery as texts.
pub(crate) fn texts_of(delivery: &Delivery) -> Vec<String> {
    delivery.messages().iter().map(text_of).collect()
}

/// The payload of a message as text.
pub(crate) fn text_of(message: &Message) -> String {
    String::from_utf8_lossy(message.payload()).into_owned()
}

/// Numbered texts, in order.
pub(crate) fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{n:04}")).collect()
}
