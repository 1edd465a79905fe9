//! The memory driver as the kit sees it.

use std::sync::{Arc, Mutex, Weak};

use async_trait::async_trait;
use pgqueue_conformance::{Capabilities, Harness};
use pgqueue_core::{
    CheckpointStore, DeadLetter, MessageId, NewMessage, Publisher, Result, Start, Subscription, SubscriptionDriver,
    Topic,
};
use pgqueue_memory::{MemoryQueue, MemorySubscription};

/// Everything but what needs a store outside the process: durability, transactions, connections.
pub(crate) const CAPABILITIES: Capabilities = Capabilities::new()
    .with_attempts()
    .with_batch()
    .with_checkpoints()
    .with_concurrent()
    .with_dead_letters()
    .with_dedup()
    .with_delay()
    .with_explicit_topics()
    .with_headers()
    .with_keys()
    .with_leases()
    .with_listeners()
    .with_replay()
    .with_schedule()
    .with_seek()
    .with_selectors()
    .with_single_active()
    .with_stable_total_order()
    .with_total_order()
    .with_unsubscribe();

#[derive(Default)]
struct Memory {
    queue: MemoryQueue,
    /// Weak: the kit drops a driver to stop its consumer.
    consumers: Mutex<Vec<Weak<MemorySubscription>>>,
}

pub(crate) async fn make() -> Result<Box<dyn Harness>> {
    Ok(Box::new(Memory::default()))
}

#[async_trait]
impl Harness for Memory {
    async fn create_topic(&self, topic: Topic) -> Result<()> {
        self.queue.create_topic(topic).await
    }

    async fn driver(&self, subscription: Subscription) -> Result<Arc<dyn SubscriptionDriver>> {
        let consumer = Arc::new(self.queue.subscription(subscription));
        self.consumers.lock().unwrap().push(Arc::downgrade(&consumer));
        Ok(consumer)
    }

    async fn publish(&self, topic: &str, messages: Vec<NewMessage>) -> Result<Vec<MessageId>> {
        self.queue.publish(topic, messages).await
    }

    async fn unsubscribe(&self, name: &str) -> Result<()> {
        self.queue.delete_subscription(name).await
    }

    async fn dead_letters(&self, name: &str) -> Result<Vec<DeadLetter>> {
        self.queue.dead_letters(name).await
    }

    async fn redrive(&self, name: &str) -> Result<usize> {
        self.queue.redrive(name).await
    }

    async fn seek(&self, name: &str, start: &Start) -> Result<()> {
        self.queue.seek(name, start).await
    }

    async fn checkpoints(&self) -> Result<Arc<dyn CheckpointStore>> {
        Ok(Arc::new(self.queue.clone()))
    }

    async fn expire_leases(&self) -> Result<()> {
        for subscription in self.queue.subscriptions().await? {
            self.queue.expire_leases(subscription.name())?;
        }
        Ok(())
    }

    async fn crash_consumers(&self) -> Result<()> {
        let consumers: Vec<_> = self.consumers.lock().unwrap().drain(..).collect();
        consumers.iter().filter_map(Weak::upgrade).for_each(|consumer| consumer.crash());
        Ok(())
    }

    async fn listeners(&self) -> Result<usize> {
        let subscriptions = self.queue.subscriptions().await?;
        subscriptions.iter().map(|subscription| self.queue.listeners(subscription.name())).sum()
    }
}
