//! [`MemoryQueue`]: the queue itself.

use std::{fmt, future::ready, sync::Arc};

use async_trait::async_trait;
use pgqueue_core::{
    DeadLetter, MessageId, NewMessage, Operation, Publisher, Result, Start, Subscription, SubscriptionStats, Topic,
    telemetry,
};

use crate::{
    consumer::MemorySubscription, inspect::message_not_found, store::Store, subscription_state::SubscriptionState,
};

/// A queue in memory: topics, subscriptions and their messages, gone with its last handle.
///
/// Cloning makes another handle to the same queue. Everything runs on tokio's clock: in a test with
/// `#[tokio::test(start_paused = true)]`, a retry an hour away takes a millisecond.
///
/// Methods that a queue on a server has too are async, so that code moves between them unchanged; here they never wait.
#[derive(Clone)]
pub struct MemoryQueue {
    pub(crate) store: Arc<Store>,
}

impl MemoryQueue {
    /// Makes an empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self { store: Arc::new(Store::new()) }
    }

    /// Creates a topic. The same again changes nothing but the dedup window and the retention.
    ///
    /// # Errors
    /// [`Invalid`](pgqueue_core::ErrorKind::Invalid) for an unusable name or option,
    /// [`Conflict`](pgqueue_core::ErrorKind::Conflict) if it exists with another number of buckets.
    ///
    /// # Cancel safety
    /// The future never waits: once polled it is done.
    pub async fn create_topic(&self, topic: Topic) -> Result<()> {
        let name = topic.name().to_owned();
        let created = self.store.lock().0.create_topic(topic);
        noted(created, "a topic was created", &name)
    }

    /// Returns all topics, in no particular order.
    ///
    /// # Errors
    /// None here; a server may be out of reach.
    ///
    /// # Cancel safety
    /// The future changes nothing.
    pub async fn topics(&self) -> Result<Vec<Topic>> {
        Ok(self.store.lock().0.topics().cloned().collect())
    }

    /// Returns a topic.
    ///
    /// # Errors
    /// [`NotFound`](pgqueue_core::ErrorKind::NotFound) if there is none of this name.
    ///
    /// # Cancel safety
    /// The future changes nothing.
    pub async fn topic(&self, name: &str) -> Result<Topic> {
        managing(self.store.lock().0.topic(name).map(|topic| topic.options.clone()))
    }

    /// Deletes a topic with all its subscriptions, messages and dead letters. Their consumers' streams end with
    /// [`NotFound`](pgqueue_core::ErrorKind::NotFound).
    ///
    /// # Errors
    /// [`NotFound`](pgqueue_core::ErrorKind::NotFound) if there is none of this name.
    ///
    /// # Cancel safety
    /// The future never waits: once polled it is done.
    pub async fn delete_topic(&self, name: &str) -> Result<()> {
        let gone = self.store.lock().0.delete_topic(name);
        noted(gone.map(drop), "a topic was deleted", name)
    }

    /// Makes a consumer of a subscription: the driver for [`subscribe`](pgqueue_core::subscribe), which inserts it.
    #[must_use]
    pub fn subscription(&self, subscription: Subscription) -> MemorySubscription {
        MemorySubscription::new(Arc::clone(&self.store), subscription)
    }

    /// Returns all subscriptions, in no particular order.
    ///
    /// # Errors
    /// None here; a server may be out of reach.
    ///
    /// # Cancel safety
    /// The future changes nothing.
    pub async fn subscriptions(&self) -> Result<Vec<Subscription>> {
        Ok(self.store.lock().0.subscriptions().cloned().collect())
    }

    /// Returns a subscription with its options, if there is one of this name.
    ///
    /// # Errors
    /// None here; a server may be out of reach.
    ///
    /// # Cancel safety
    /// The future changes nothing.
    pub async fn find_subscription(&self, name: &str) -> Result<Option<Subscription>> {
        Ok(self.store.lock().0.subscription(name).ok().map(|subscription| subscription.options.clone()))
    }

    /// Inserts a subscription: it gets what is published from now on, or what else its [start](Subscription::with_start)
    /// says. The same again keeps all messages and takes the new options.
    ///
    /// # Errors
    /// [`Invalid`](pgqueue_core::ErrorKind::Invalid) for an unusable name, option or position,
    /// [`NotFound`](pgqueue_core::ErrorKind::NotFound) for an unknown topic,
    /// [`Conflict`](pgqueue_core::ErrorKind::Conflict) if it exists with another topic, order or selector,
    /// [`Truncated`](pgqueue_core::ErrorKind::Truncated) if something was deleted that came after the position it starts from.
    ///
    /// # Cancel safety
    /// The future never waits: once polled it is done.
    pub async fn insert_subscription(&self, subscription: &Subscription) -> Result<()> {
        noted(self.store.insert_subscription(subscription), "a subscription was inserted", subscription.name())
    }

    /// Sets the options of a subscription that exists which are not its identity, from the next delivery on.
    ///
    /// # Errors
    /// As [`insert_subscription`](Self::insert_subscription), and [`NotFound`](pgqueue_core::ErrorKind::NotFound) if there
    /// is none of this name.
    ///
    /// # Cancel safety
    /// The future never waits: once polled it is done.
    pub async fn alter_subscription(&self, subscription: &Subscription) -> Result<()> {
        managing(self.store.alter_subscription(subscription))
    }

    /// Moves a subscription to another start: it gets all that comes after, also what it got before. What it had in hand or
    /// waited for a retry is forgotten, and later answers are refused with [`LeaseLost`](pgqueue_core::ErrorKind::LeaseLost).
    ///
    /// # Errors
    /// [`NotFound`](pgqueue_core::ErrorKind::NotFound) if there is none of this name,
    /// [`Conflict`](pgqueue_core::ErrorKind::Conflict) while one of its consumers lives or while it has dead letters,
    /// [`Invalid`](pgqueue_core::ErrorKind::Invalid) for an unusable position,
    /// [`Truncated`](pgqueue_core::ErrorKind::Truncated) if something was deleted that came after it. Then nothing changes.
    ///
    /// # Cancel safety
    /// The future never waits: once polled it is done.
    pub async fn seek(&self, name: &str, start: &Start) -> Result<()> {
        let forgotten = {
            let (mut state, now) = self.store.lock();
            state.seek(name, start, now)
        };
        noted(forgotten.map(drop), "a subscription was moved", name)
    }

    /// Returns how a subscription stands.
    ///
    /// # Errors
    /// [`NotFound`](pgqueue_core::ErrorKind::NotFound) if there is none of this name.
    ///
    /// # Cancel safety
    /// The future changes nothing.
    pub async fn stats(&self, name: &str) -> Result<SubscriptionStats> {
        let (mut state, now) = self.store.lock();
        managing(state.advance(name, now).map(|subscription| subscription.stats(now)))
    }

    /// Deletes a subscription with its messages and dead letters. Its consumers' streams end with
    /// [`NotFound`](pgqueue_core::ErrorKind::NotFound), or go on with its successor if the same is inserted again at once.
    ///
    /// # Errors
    /// [`NotFound`](pgqueue_core::ErrorKind::NotFound) if there is none of this name.
    ///
    /// # Cancel safety
    /// The future never waits: once polled it is done.
    pub async fn delete_subscription(&self, name: &str) -> Result<()> {
        let gone = self.store.lock().0.delete_subscription(name);
        noted(gone.map(drop), "a subscription was deleted", name)
    }

    /// Returns the messages that a subscription gave up, oldest first.
    ///
    /// # Errors
    /// [`NotFound`](pgqueue_core::ErrorKind::NotFound) if there is no such subscription.
    ///
    /// # Cancel safety
    /// The future changes nothing.
    pub async fn dead_letters(&self, subscription: &str) -> Result<Vec<DeadLetter>> {
        managing(self.advanced(subscription, |subscription| subscription.dead().cloned().collect()))
    }

    /// Hands all dead letters of a subscription out again, from their first attempt, behind what waits already. Returns how
    /// many there were.
    ///
    /// # Errors
    /// [`NotFound`](pgqueue_core::ErrorKind::NotFound) if there is no such subscription.
    ///
    /// # Cancel safety
    /// The future never waits: once polled it is done.
    pub async fn redrive(&self, subscription: &str) -> Result<usize> {
        managing(self.advanced(subscription, |subscription| subscription.redrive(|_| true)))
    }

    /// Hands one dead letter out again, from its first attempt, behind what waits already.
    ///
    /// # Errors
    /// [`NotFound`](pgqueue_core::ErrorKind::NotFound) if there is no such subscription or dead letter.
    ///
    /// # Cancel safety
    /// The future never waits: once polled it is done.
    pub async fn redrive_one(&self, subscription: &str, id: &MessageId) -> Result<()> {
        managing(match self.advanced(subscription, |subscription| subscription.redrive(|dead| dead == id))? {
            0 => Err(message_not_found(subscription, id, "among the dead letters")),
            _ => Ok(()),
        })
    }

    /// Forgets all dead letters of a subscription. Returns how many there were.
    ///
    /// # Errors
    /// [`NotFound`](pgqueue_core::ErrorKind::NotFound) if there is no such subscription.
    ///
    /// # Cancel safety
    /// The future never waits: once polled it is done.
    pub async fn purge_dead_letters(&self, subscription: &str) -> Result<usize> {
        managing(self.advanced(subscription, SubscriptionState::purge)).map(|purged| purged.len())
    }

    /// Does something with a subscription as it stands now.
    pub(crate) fn advanced<T>(&self, subscription: &str, act: impl FnOnce(&mut SubscriptionState) -> T) -> Result<T> {
        let (mut state, now) = self.store.lock();
        state.advance(subscription, now).map(act)
    }
}

/// Says what was done, to whoever listens to `tracing`.
pub(crate) fn noted<T>(result: Result<T>, what: &'static str, name: &str) -> Result<T> {
    if result.is_ok() {
        tracing::info!(messaging.system = "pgqueue", name, "{what}");
    }
    managing(result)
}

pub(crate) fn managing<T>(result: Result<T>) -> Result<T> {
    result.map_err(|error| error.during(Operation::Manage))
}

#[async_trait]
impl Publisher for MemoryQueue {
    async fn publish(&self, topic: &str, messages: Vec<NewMessage>) -> Result<Vec<MessageId>> {
        let published = telemetry::publishing(topic, messages, |messages| ready(self.store.publish(topic, messages)));
        published.await.map_err(|error| error.during(Operation::Publish))
    }
}

impl Default for MemoryQueue {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (state, _) = self.store.lock();
        f.debug_struct("MemoryQueue")
            .field("topics", &state.topics().count())
            .field("subscriptions", &state.subscriptions().count())
            .finish_non_exhaustive()
    }
}
