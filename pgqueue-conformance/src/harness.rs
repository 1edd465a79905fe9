//! [`Harness`]: what the kit asks of the backend under test.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use pgqueue_core::{
    CheckpointStore, DeadLetter, Error, ErrorKind, MessageId, NewMessage, Operation, Result, Start, Subscription,
    SubscriptionDriver, Topic,
};

use crate::Capability;

/// One isolated backend, made for a single case and dropped after it.
///
/// The first three methods are the basics. Each of the others belongs to a [`Capability`]: claim it and write the method,
/// or do neither.
///
/// # Errors
/// All methods return what the store says, unchanged: cases look at the kind. A method that is not written returns
/// [`ErrorKind::Invalid`], naming itself and the capability that promises it.
///
/// # Cancel safety
/// A case that meets its time limit drops the future it waits for, and then the harness. Nothing is asked of either but
/// that they leave nothing behind that disturbs the other cases.
#[async_trait]
pub trait Harness: Send + Sync + 'static {
    /// Creates a topic. Does nothing where topics need no creation.
    async fn create_topic(&self, topic: Topic) -> Result<()>;

    /// Makes a consumer of `subscription`, which it does not insert: over a connection and an engine of its own, like
    /// another process.
    async fn driver(&self, subscription: Subscription) -> Result<Arc<dyn SubscriptionDriver>>;

    /// Publishes all of `messages`, in order, or none, as [`Publisher::publish`](pgqueue_core::Publisher::publish) does.
    async fn publish(&self, topic: &str, messages: Vec<NewMessage>) -> Result<Vec<MessageId>>;

    /// Publishes inside a transaction that stays open. For [`Capability::Transactional`].
    async fn publish_uncommitted(&self, topic: &str, messages: Vec<NewMessage>) -> Result<Box<dyn Uncommitted>> {
        let _ = (topic, messages);
        not_written("publish_uncommitted", Capability::Transactional)
    }

    /// Cuts every connection of every driver made so far, and keeps these drivers out until [`reconnect`](Self::reconnect).
    /// What is made or published meanwhile is not concerned. For [`Capability::Disconnectable`].
    async fn disconnect(&self) -> Result<()> {
        not_written("disconnect", Capability::Disconnectable)
    }

    /// Lets the drivers that were cut off connect again. For [`Capability::Disconnectable`].
    async fn reconnect(&self) -> Result<()> {
        not_written("reconnect", Capability::Disconnectable)
    }

    /// Closes everything and opens it again on the same storage, as after a crash of the store. Drivers made before are
    /// dead. For [`Capability::Durable`].
    async fn reopen(&self) -> Result<()> {
        not_written("reopen", Capability::Durable)
    }

    /// Deletes a subscription with all it holds. For [`Capability::Unsubscribe`].
    async fn unsubscribe(&self, subscription: &str) -> Result<()> {
        let _ = subscription;
        not_written("unsubscribe", Capability::Unsubscribe)
    }

    /// Returns what a subscription gave up. For [`Capability::DeadLetters`].
    async fn dead_letters(&self, subscription: &str) -> Result<Vec<DeadLetter>> {
        let _ = subscription;
        not_written("dead_letters", Capability::DeadLetters)
    }

    /// Hands out all dead letters of a subscription again and returns how many. For [`Capability::DeadLetters`].
    async fn redrive(&self, subscription: &str) -> Result<usize> {
        let _ = subscription;
        not_written("redrive", Capability::DeadLetters)
    }

    /// Moves a subscription to another start. For [`Capability::Seek`].
    async fn seek(&self, subscription: &str, start: &Start) -> Result<()> {
        let _ = (subscription, start);
        not_written("seek", Capability::Seek)
    }

    /// Returns where positions are stored. For [`Capability::Checkpoints`].
    async fn checkpoints(&self) -> Result<Arc<dyn CheckpointStore>> {
        not_written("checkpoints", Capability::Checkpoints)
    }

    /// Ends all leases in hand now, as if their holders had been silent for too long, though they live. For
    /// [`Capability::Leases`].
    async fn expire_leases(&self) -> Result<()> {
        not_written("expire_leases", Capability::Leases)
    }

    /// Stops every driver made so far as with `kill -9`: nothing is released, no beat is sent, and dropping its deliveries
    /// does nothing. Their leases end by themselves, after [`Subscription::lease`]. For [`Capability::Leases`].
    async fn crash_consumers(&self) -> Result<()> {
        not_written("crash_consumers", Capability::Leases)
    }

    /// Returns how many streams of wake-ups are listening, of all subscriptions. For [`Capability::Listeners`].
    async fn listeners(&self) -> Result<usize> {
        not_written("listeners", Capability::Listeners)
    }

    /// Returns a payload as somebody who looks into the store reads it. For [`Capability::ReadableStore`].
    async fn stored_payload(&self, id: &MessageId) -> Result<String> {
        let _ = id;
        not_written("stored_payload", Capability::ReadableStore)
    }

    /// Lets `time` pass: on tokio's clock, paused or not.
    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// The longest wait for what must happen. Default: 10 s.
    fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }

    /// The silence that counts as "nothing arrives". Default: 200 ms.
    fn quiet(&self) -> Duration {
        Duration::from_millis(200)
    }
}

/// Messages that were published in a transaction which is still open.
#[async_trait]
pub trait Uncommitted: Send {
    /// Commits the transaction.
    ///
    /// # Errors
    /// What the store says.
    ///
    /// # Cancel safety
    /// Dropping the future means either outcome.
    async fn commit(self: Box<Self>) -> Result<()>;

    /// Rolls the transaction back.
    ///
    /// # Errors
    /// What the store says.
    ///
    /// # Cancel safety
    /// Dropping the future rolls back.
    async fn rollback(self: Box<Self>) -> Result<()>;
}

fn not_written<T>(method: &str, promised_by: Capability) -> Result<T> {
    let message = format!("the harness has no {method}; write it, or do not claim {promised_by:?}");
    Err(Error::new(ErrorKind::Invalid, message).during(Operation::Manage))
}
