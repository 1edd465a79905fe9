//! [`Flaw`]: what a broken driver does wrong; and the store that does everything else right.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use pgqueue_conformance::{Harness, Uncommitted};
use pgqueue_core::{
    Ack, Acker, Checkpoint, CheckpointStore, DeadLetter, Delivery, Message, MessageId, NewMessage, Position, Result,
    Start, Subscription, SubscriptionDriver, Topic, Wakeups,
};

use crate::support::SimulatedStore;

/// One broken promise; whatever a flaw does not override is done right.
#[async_trait]
pub(crate) trait Flaw: Send + Sync + 'static {
    /// The subscription that is really consumed.
    fn subscription(&self, subscription: Subscription) -> Subscription {
        subscription
    }

    /// Whether a message is really published.
    fn publishes(&self, topic: &str, message: &NewMessage, situation: Situation) -> bool {
        let _ = (topic, message, situation);
        true
    }

    async fn insert(&self, consumer: &Consumer) -> Result<()> {
        consumer.driver.insert_subscription().await
    }

    async fn listen(&self, consumer: &Consumer) -> Result<Wakeups> {
        consumer.driver.listen().await
    }

    async fn fetch(&self, consumer: &Consumer) -> Result<Option<Delivery>> {
        consumer.driver.fetch_pending().await
    }

    /// The message that is really handed out.
    fn message(&self, message: Message) -> Message {
        message
    }

    async fn settle(&self, delivery: Delivery, ack: Ack) -> Result<()> {
        delivery.settle(ack).await
    }

    /// Ends a delivery that was dropped.
    fn release(&self, delivery: Delivery) {
        drop(delivery);
    }

    async fn seek(&self, store: &SimulatedStore, subscription: &str, start: &Start) -> Result<()> {
        store.seek(subscription, start).await
    }

    async fn checkpoint(&self, store: &dyn CheckpointStore, name: &str) -> Result<Option<Checkpoint>> {
        store.checkpoint(name).await
    }

    async fn advance_checkpoint(&self, store: &dyn CheckpointStore, name: &str, position: &Position) -> Result<bool> {
        store.advance_checkpoint(name, position).await
    }

    async fn reset_checkpoint(
        &self,
        store: &dyn CheckpointStore,
        name: &str,
        from: &Position,
        to: Option<&Position>,
    ) -> Result<()> {
        store.reset_checkpoint(name, from, to).await
    }
}

/// How things are when a message is published.
#[derive(Clone, Copy)]
pub(crate) struct Situation {
    pub(crate) connections_are_cut: bool,
    pub(crate) somebody_listens: bool,
}

/// A correct driver, and what flaws want to know.
pub(crate) struct Consumer {
    pub(crate) id: u64,
    pub(crate) subscription: Subscription,
    pub(crate) driver: Arc<dyn SubscriptionDriver>,
    /// What a flaw fetched and did not hand out.
    pub(crate) claimed: Mutex<Vec<Delivery>>,
}

pub(crate) struct FlawedStore {
    store: SimulatedStore,
    flaw: Arc<dyn Flaw>,
    /// Whether connections are.
    cut: AtomicBool,
}

impl FlawedStore {
    pub(crate) fn new(flaw: impl Flaw) -> Self {
        Self { store: SimulatedStore::default(), flaw: Arc::new(flaw), cut: AtomicBool::new(false) }
    }
}

#[async_trait]
impl Harness for FlawedStore {
    async fn driver(&self, subscription: Subscription) -> Result<Arc<dyn SubscriptionDriver>> {
        static LAST_ID: AtomicU64 = AtomicU64::new(0);
        let id = LAST_ID.fetch_add(1, Ordering::Relaxed);
        let subscription = self.flaw.subscription(subscription);
        let driver = self.store.driver(subscription.clone()).await?;
        let consumer = Consumer { id, subscription, driver, claimed: Mutex::default() };
        Ok(Arc::new(FlawedDriver { flaw: Arc::clone(&self.flaw), consumer }))
    }

    async fn publish(&self, topic: &str, messages: Vec<NewMessage>) -> Result<Vec<MessageId>> {
        let situation = Situation {
            connections_are_cut: self.cut.load(Ordering::Relaxed),
            somebody_listens: self.store.listeners().await? > 0,
        };
        let count = messages.len();
        let published = messages.into_iter().filter(|message| self.flaw.publishes(topic, message, situation)).collect();
        let mut ids = self.store.publish(topic, published).await?;
        ids.resize(count, MessageId::new("not published"));
        Ok(ids)
    }

    async fn disconnect(&self) -> Result<()> {
        self.cut.store(true, Ordering::Relaxed);
        self.store.disconnect().await
    }

    async fn reconnect(&self) -> Result<()> {
        self.cut.store(false, Ordering::Relaxed);
        self.store.reconnect().await
    }

    async fn create_topic(&self, topic: Topic) -> Result<()> {
        self.store.create_topic(topic).await
    }

    async fn publish_uncommitted(&self, topic: &str, messages: Vec<NewMessage>) -> Result<Box<dyn Uncommitted>> {
        self.store.publish_uncommitted(topic, messages).await
    }

    async fn reopen(&self) -> Result<()> {
        self.store.reopen().await
    }

    async fn unsubscribe(&self, subscription: &str) -> Result<()> {
        self.store.unsubscribe(subscription).await
    }

    async fn dead_letters(&self, subscription: &str) -> Result<Vec<DeadLetter>> {
        self.store.dead_letters(subscription).await
    }

    async fn redrive(&self, subscription: &str) -> Result<usize> {
        self.store.redrive(subscription).await
    }

    async fn seek(&self, subscription: &str, start: &Start) -> Result<()> {
        self.flaw.seek(&self.store, subscription, start).await
    }

    async fn checkpoints(&self) -> Result<Arc<dyn CheckpointStore>> {
        Ok(Arc::new(FlawedCheckpoints { flaw: Arc::clone(&self.flaw), store: self.store.checkpoints().await? }))
    }

    async fn expire_leases(&self) -> Result<()> {
        self.store.expire_leases().await
    }

    async fn crash_consumers(&self) -> Result<()> {
        self.store.crash_consumers().await
    }

    async fn listeners(&self) -> Result<usize> {
        self.store.listeners().await
    }

    async fn stored_payload(&self, id: &MessageId) -> Result<String> {
        self.store.stored_payload(id).await
    }
}

struct FlawedDriver {
    flaw: Arc<dyn Flaw>,
    consumer: Consumer,
}

#[async_trait]
impl SubscriptionDriver for FlawedDriver {
    async fn insert_subscription(&self) -> Result<()> {
        self.flaw.insert(&self.consumer).await
    }

    async fn listen(&self) -> Result<Wakeups> {
        self.flaw.listen(&self.consumer).await
    }

    async fn fetch_pending(&self) -> Result<Option<Delivery>> {
        let Some(delivery) = self.flaw.fetch(&self.consumer).await? else { return Ok(None) };
        let messages: Vec<_> = delivery.messages().iter().map(|message| self.flaw.message(message.clone())).collect();
        let acker = FlawedAcker { delivery: Some(delivery), flaw: Arc::clone(&self.flaw) };
        if self.consumer.subscription.batch() > 1 {
            return Delivery::batch(messages, acker).map(Some);
        }
        Ok(messages.into_iter().next().map(|message| Delivery::new(message, acker)))
    }
}

struct FlawedCheckpoints {
    flaw: Arc<dyn Flaw>,
    store: Arc<dyn CheckpointStore>,
}

#[async_trait]
impl CheckpointStore for FlawedCheckpoints {
    async fn checkpoint(&self, name: &str) -> Result<Option<Checkpoint>> {
        self.flaw.checkpoint(&*self.store, name).await
    }

    async fn checkpoints(&self) -> Result<Vec<Checkpoint>> {
        self.store.checkpoints().await
    }

    async fn advance_checkpoint(&self, name: &str, position: &Position) -> Result<bool> {
        self.flaw.advance_checkpoint(&*self.store, name, position).await
    }

    async fn reset_checkpoint(&self, name: &str, from: &Position, to: Option<&Position>) -> Result<()> {
        self.flaw.reset_checkpoint(&*self.store, name, from, to).await
    }
}

struct FlawedAcker {
    /// `None` once it is settled.
    delivery: Option<Delivery>,
    flaw: Arc<dyn Flaw>,
}

#[async_trait]
impl Acker for FlawedAcker {
    async fn settle(mut self: Box<Self>, ack: Ack) -> Result<()> {
        match self.delivery.take() {
            Some(delivery) => self.flaw.settle(delivery, ack).await,
            None => Ok(()),
        }
    }

    fn lease_lost(&self) -> BoxFuture<'static, ()> {
        self.delivery.as_ref().map_or_else(|| Box::pin(std::future::ready(())) as _, Delivery::lease_lost)
    }
}

impl Drop for FlawedAcker {
    fn drop(&mut self) {
        if let Some(delivery) = self.delivery.take() {
            self.flaw.release(delivery);
        }
    }
}

/// The acker of a message that nobody claimed: no answer matters.
pub(crate) struct Unclaimed;

#[async_trait]
impl Acker for Unclaimed {
    async fn settle(self: Box<Self>, _: Ack) -> Result<()> {
        Ok(())
    }
}
