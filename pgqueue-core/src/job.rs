//! [`Job`]: what a [`Worker`](crate::Worker) hands to its handler.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{
    FutureExt,
    future::{self, BoxFuture},
};

use crate::{Delivery, Error, ErrorKind, Message, Operation, Result};

/// A decoded delivery, for one run of a handler.
///
/// The worker settles the delivery by what the handler returns, unless the handler [takes](Self::take_delivery) it.
pub struct Job<T> {
    /// What the payload holds.
    pub value: T,
    held: Arc<Held>,
}

/// A delivery that worker and handler share until one of them takes it.
pub(crate) struct Held {
    messages: Vec<Message>,
    subscription: Option<Arc<str>>,
    delivery: Mutex<Option<Delivery>>,
}

impl Held {
    pub(crate) fn new(delivery: Delivery) -> Self {
        Self {
            messages: delivery.messages().to_vec(),
            subscription: delivery.subscription.clone(),
            delivery: Mutex::new(Some(delivery)),
        }
    }

    pub(crate) fn subscription(&self) -> Option<&str> {
        self.subscription.as_deref()
    }

    pub(crate) fn messages(&self) -> &[Message] {
        &self.messages
    }

    pub(crate) fn take(&self) -> Option<Delivery> {
        self.lock().take()
    }

    pub(crate) fn is_taken(&self) -> bool {
        self.lock().is_none()
    }

    pub(crate) fn lease_lost(&self) -> BoxFuture<'static, ()> {
        self.lock().as_ref().map_or_else(|| future::ready(()).boxed(), Delivery::lease_lost)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Delivery>> {
        // Nothing that can panic runs under the lock but a driver's own `lease_lost`, which changes nothing here.
        self.delivery.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Job<T> {
    pub(crate) fn new(value: T, held: Arc<Held>) -> Self {
        Self { value, held }
    }

    pub(crate) fn into_parts(self) -> (T, Arc<Held>) {
        (self.value, self.held)
    }

    /// Returns the message, of a batch the first.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.held.messages[0]
    }

    /// Returns all messages, in order: one, unless the subscription asks for batches.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        &self.held.messages
    }

    /// Resolves when this consumer's lease is gone, so that the handler's work is somebody else's by now; see
    /// [`Delivery::lease_lost`]. At once if the delivery was settled already.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub fn lease_lost(&self) -> BoxFuture<'static, ()> {
        self.held.lease_lost()
    }

    /// Gives the value and the delivery to the handler, to settle it itself, as inside a transaction. The [`Ack`](crate::Ack)
    /// that the handler returns then counts for nothing; an [`Outcome::Stop`](crate::Outcome::Stop) stops all the same.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the handler has returned, which a task it spawned may find.
    pub fn take_delivery(self) -> Result<(T, Delivery)> {
        let delivery = self.held.take().ok_or_else(|| {
            Error::new(
                ErrorKind::Invalid,
                "the handler has returned and its worker settled the delivery; take it earlier",
            )
            .during(Operation::Handle)
        })?;
        Ok((self.value, delivery))
    }
}

impl<T> fmt::Debug for Job<T> {
    /// Shows everything but the value, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("messages", &self.held.messages).finish_non_exhaustive()
    }
}
