//! [`Acker`]: a driver's end of a delivery.

use std::any::Any;

use async_trait::async_trait;
use futures::future::{self, BoxFuture};

use crate::{Ack, Result};

/// What a driver hands out with each delivery, to hear how it ends.
///
/// # Contract
/// - Dropping an acker that was not settled requeues at once and counts the attempt. `Drop` never blocks and never spawns:
///   it notes what to release, and the driver's own task does it.
/// - It is `Sync` so that a `&Delivery` may be held across an await in a spawned task.
#[async_trait]
pub trait Acker: Any + Send + Sync {
    /// Makes the answer durable, for all messages of the delivery as one.
    ///
    /// # Contract
    /// - `Ok` removes the messages from this subscription, and from no other.
    /// - `Requeue` lets them wait for its delay, or else for [`Backoff::delay`](crate::Backoff::delay) of their attempt,
    ///   counted when they were handed out; those that reached
    ///   [`max_attempts`](crate::Backoff::max_attempts) become dead letters, with its reason.
    /// - `Reject` makes dead letters of them at once.
    /// - Once this returns `Ok`, no crash undoes the answer.
    /// - A consumer whose lease is gone is refused, and changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::LeaseLost`](crate::ErrorKind::LeaseLost) if the delivery belongs to somebody else by now,
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) if the subscription is gone,
    /// [`ErrorKind::Unknown`](crate::ErrorKind::Unknown) if the answer may or may not have arrived.
    ///
    /// # Cancel safety
    /// Dropping the future means either outcome: the answer took effect, or the message comes again.
    async fn settle(self: Box<Self>, ack: Ack) -> Result<()>;

    /// Resolves when the lease is gone, so that the handler's work is somebody else's by now. By default never.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    fn lease_lost(&self) -> BoxFuture<'static, ()> {
        Box::pin(future::pending())
    }
}
