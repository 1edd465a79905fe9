//! What a test asks a queue: what is waiting, in flight, acked; wait for an ack, wait until nothing is due, drain.

use std::{future::Future, sync::Arc};

use pgqueue_core::{BoxError, Error, ErrorKind, Job, Message, MessageId, Outcome, Result, Worker, subscribe};
use serde::de::DeserializeOwned;
use tokio::{sync::watch, time::Instant};

use crate::{
    queue::{MemoryQueue, managing},
    store::sleep_until,
    subscription_state::SubscriptionState,
};

impl MemoryQueue {
    /// Returns the messages that wait for a consumer of `subscription`, those that wait for a retry included, in log order, redriven
    /// ones last.
    /// Their attempt counts the deliveries so far.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such subscription.
    pub fn pending(&self, subscription: &str) -> Result<Vec<Message>> {
        managing(self.advanced(subscription, |subscription| subscription.pending()))
    }

    /// Returns the messages in the hands of consumers of `subscription`, in log order.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such subscription.
    pub fn in_flight(&self, subscription: &str) -> Result<Vec<Message>> {
        managing(self.advanced(subscription, |subscription| subscription.in_flight()))
    }

    /// Returns the latest 10,000 messages that consumers of `subscription` answered with OK, in the order they did. Their
    /// payloads stay in memory until then.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such subscription.
    pub fn acked(&self, subscription: &str) -> Result<Vec<Message>> {
        managing(self.advanced(subscription, |subscription| subscription.acked().cloned().collect()))
    }

    /// Returns how many streams listen to `subscription`.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such subscription.
    pub fn listeners(&self, subscription: &str) -> Result<usize> {
        managing(self.advanced(subscription, |subscription| subscription.listeners()))
    }

    /// Ends all leases of `subscription` now, as if their consumers had been silent for too long.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such subscription.
    pub fn expire_leases(&self, subscription: &str) -> Result<()> {
        let (mut state, now) = self.store.lock();
        managing(state.advance(subscription, now).map(|subscription| subscription.expire_all(now)))
    }

    /// Waits until a consumer of `subscription` answered the message with OK; at once if one did already. Returns the
    /// message with its last attempt. Waits for as long as nobody consumes: `tokio::time::timeout` sets an end.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if the message is not of this subscription, or is not among its latest 10,000
    /// acked. [`Conflict`](ErrorKind::Conflict) if it died.
    ///
    /// # Cancel safety
    /// The future changes nothing.
    pub async fn wait_acked(&self, subscription: &str, id: &MessageId) -> Result<Message> {
        loop {
            let change = {
                let (mut state, now) = self.store.lock();
                managing(state.advance(subscription, now).map(drop))?;
                let held = managing(state.subscription(subscription))?;
                if !state.is_unsettled(held, id) {
                    return managing(outcome(held, id));
                }
                Change::of(held)
            };
            change.await_it().await;
        }
    }

    /// Waits until nothing is in flight in `subscription` and nothing is due: what waits for a retry or is scheduled does
    /// not count. At once if the subscription does not exist. The stop signal of [`drain`](Self::drain).
    ///
    /// # Cancel safety
    /// The future changes nothing.
    pub fn idle(&self, subscription: &str) -> impl Future<Output = ()> + Send + 'static {
        let (store, name): (_, Arc<str>) = (Arc::clone(&self.store), subscription.into());
        async move {
            loop {
                let change = {
                    let (mut state, now) = store.lock();
                    let Ok(subscription) = state.advance(&name, now) else { return };
                    if subscription.is_idle(now.instant) {
                        return;
                    }
                    Change::of(subscription)
                };
                change.await_it().await;
            }
        }
    }

    /// Runs `handler` on the messages of a subscription, one at a time, until nothing is due or the handler returns
    /// [`Outcome::Stop`]. What the handler requeues with a delay, or fails on, stays for later. Waits for what other
    /// consumers have in hand.
    ///
    /// A handler that fails or panics, or is never called because a payload cannot be decoded, is no error here, as it is
    /// none to a [`Worker`]: look at [`pending`](Self::pending), [`acked`](Self::acked) and
    /// [`dead_letters`](Self::dead_letters) afterwards, and keep assertions out of the handler.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such subscription; else as [`Worker::run`].
    ///
    /// # Cancel safety
    /// Dropping the future drops the handler; its message is requeued at once.
    pub async fn drain<T, H, Fut, R, E>(&self, subscription: &str, handler: H) -> Result<()>
    where
        T: DeserializeOwned + Send + 'static,
        H: Fn(Job<T>) -> Fut + Send + Sync,
        Fut: Future<Output = Result<R, E>> + Send,
        R: Into<Outcome>,
        E: Into<BoxError>,
    {
        let options = managing(self.advanced(subscription, |subscription| subscription.options.clone()))?;
        let stream = subscribe(self.subscription(options)).await?.until(self.idle(subscription));
        Worker::new(stream, handler).with_concurrency(1).run().await
    }
}

/// What may change how the messages of a subscription stand: an answer, or a lease that ends without one.
struct Change {
    settled: watch::Receiver<()>,
    deadlines: watch::Receiver<()>,
    next_deadline: Option<Instant>,
}

impl Change {
    fn of(subscription: &SubscriptionState) -> Self {
        let (settled, deadlines) = (subscription.settled(), subscription.deadlines());
        Self { settled, deadlines, next_deadline: subscription.next_deadline() }
    }

    /// Waits for it, or for the end of the subscription.
    async fn await_it(mut self) {
        tokio::select! {
            _ = self.settled.changed() => {}
            _ = self.deadlines.changed() => {}
            () = sleep_until(self.next_deadline) => {}
        }
    }
}

/// How a message that is neither waiting nor in hand ended.
fn outcome(subscription: &SubscriptionState, id: &MessageId) -> Result<Message> {
    let name = subscription.options.name();
    if let Some(letter) = subscription.dead().find(|letter| letter.message.id() == id) {
        let message = format!("message {id} died in subscription {name:?}: {}", letter.reason);
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    let acked = subscription.acked().rfind(|message| message.id() == id).cloned();
    acked.ok_or_else(|| message_not_found(name, id, "among the latest acked"))
}

pub(crate) fn message_not_found(subscription: &str, id: &MessageId, place: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("subscription {subscription:?} has no message {id} {place}"))
}
