//! [`SubscriptionDriver`]: the seam between core and a store.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::{Delivery, Result};

/// One subscription in some store, and one consumer of it: what you implement to write a driver.
///
/// Core calls [`insert_subscription`](Self::insert_subscription) once, then [`listen`](Self::listen), then
/// [`fetch_pending`](Self::fetch_pending) again and again: until it returns `None`, and from then on after every wake-up.
/// When the wake-ups fail or end, it listens again, and looks.
/// Prefetching, merging acks and renewing leases are the driver's own business, behind `fetch_pending` and
/// [`Acker`](crate::Acker).
///
/// A driver proves itself with the `pgqueue-conformance` kit. This one, over a channel, is complete, though nothing in it
/// survives the process:
///
/// ```
/// use std::sync::Mutex;
/// use pgqueue_core::*;
/// use futures::StreamExt;
/// use tokio::sync::{mpsc, watch};
///
/// struct Channel {
///     messages: Mutex<mpsc::UnboundedReceiver<Message>>,
///     back: mpsc::UnboundedSender<Message>,
///     bell: watch::Sender<()>,
/// }
///
/// struct ChannelAcker {
///     /// What a drop sends back; `None` once it is settled.
///     unsettled: Option<(Message, mpsc::UnboundedSender<Message>, watch::Sender<()>)>,
/// }
///
/// #[async_trait::async_trait]
/// impl SubscriptionDriver for Channel {
///     async fn insert_subscription(&self) -> Result<()> {
///         Ok(())
///     }
///
///     async fn listen(&self) -> Result<Wakeups> {
///         let bell = self.bell.subscribe();
///         Ok(Box::pin(futures::stream::unfold(bell, |mut bell| async {
///             bell.changed().await.ok()?;
///             Some((Ok(Wakeup::Notified), bell))
///         })))
///     }
///
///     async fn fetch_pending(&self) -> Result<Option<Delivery>> {
///         let message = self.messages.lock().unwrap().try_recv().ok();
///         Ok(message.map(|message| {
///             let again = message.clone().with_attempt(message.attempt() + 1);
///             let unsettled = Some((again, self.back.clone(), self.bell.clone()));
///             Delivery::new(message, ChannelAcker { unsettled })
///         }))
///     }
/// }
///
/// #[async_trait::async_trait]
/// impl Acker for ChannelAcker {
///     async fn settle(mut self: Box<Self>, ack: Ack) -> Result<()> {
///         if !matches!(ack, Ack::Requeue(_)) {
///             self.unsettled = None;
///         }
///         Ok(())
///     }
/// }
///
/// impl Drop for ChannelAcker {
///     fn drop(&mut self) {
///         if let Some((message, back, bell)) = self.unsettled.take() {
///             back.send(message).ok();
///             bell.send_replace(());
///         }
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// let (back, messages) = mpsc::unbounded_channel();
/// let driver = Channel { messages: messages.into(), back: back.clone(), bell: watch::Sender::new(()) };
/// let hello = NewMessage::new("hello");
/// let now = std::time::SystemTime::now();
/// back.send(Message::new(MessageId::new("1"), Position::new("1"), "greetings", hello, now)).ok();
///
/// let mut stream = subscribe(driver).await?;
/// stream.next().await.expect("a delivery")?.requeue().await?;
/// let again = stream.next().await.expect("the same message")?;
/// assert_eq!((&again.message().payload()[..], again.message().attempt()), (&b"hello"[..], 2));
/// again.ok().await?;
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait SubscriptionDriver: Send + Sync + 'static {
    /// Makes the subscription exist, durably: messages published from now on wait for its consumers.
    ///
    /// # Contract
    /// - The same subscription again changes nothing that is pending.
    /// - A subscription of this name that differs in identity is an error, and nothing changes; see
    ///   [`Subscription::validate`](crate::Subscription::validate) and
    ///   [`ensure_same_identity`](crate::Subscription::ensure_same_identity).
    /// - An order or a batch that the driver does not know is an error too.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for unusable options, [`NotFound`](crate::ErrorKind::NotFound) for an
    /// unknown topic, [`Conflict`](crate::ErrorKind::Conflict) for a difference in identity; else what the store says.
    ///
    /// # Cancel safety
    /// Dropping the future means either outcome: inserted or not.
    async fn insert_subscription(&self) -> Result<()>;

    /// Starts to listen; in force once this returns.
    ///
    /// # Contract
    /// - Wake-ups that come before the first poll of the stream are kept; several may become one.
    /// - Whatever can be fetched after a fetch returned `None` is announced by a wake-up: what is published, requeued,
    ///   released by another consumer, due after a delay, scheduled or expired.
    /// - A wake-up may be spurious, but what can be fetched is never announced again and again without an end: something
    ///   held back behind its key makes no noise.
    /// - Dropping the stream ends listening.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if the subscription was not inserted; else what the store says.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    async fn listen(&self) -> Result<Wakeups>;

    /// Claims the next delivery for this consumer, or returns `None` when nothing can be handed out now.
    ///
    /// # Contract
    /// - It does not wait for messages; waiting is what wake-ups are for.
    /// - No other consumer gets the same message while the delivery is alive and its consumer keeps its lease.
    /// - With an [order](crate::Order), it hands out nothing that would overtake an unsettled message.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if the subscription does not exist (any more); else what the store says.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: what was claimed but not returned is released.
    async fn fetch_pending(&self) -> Result<Option<Delivery>>;

    /// Hands out the next delivery if this consumer has it in hand already, so that the store need not be asked. By default none.
    ///
    /// Core calls it before each [`fetch_pending`](Self::fetch_pending), which it spares where this returns one. Its contract is the
    /// same, and it never blocks.
    ///
    /// # Errors
    /// Those of [`fetch_pending`](Self::fetch_pending).
    fn fetch_ready(&self) -> Result<Option<Delivery>> {
        Ok(None)
    }
}

/// The reasons to look for deliveries again, as they come.
///
/// An error, or the end of the stream, makes the consumer listen again and then look.
pub type Wakeups = BoxStream<'static, Result<Wakeup>>;

/// Why to look for deliveries again; each means the same: look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive] // stores may have reasons of their own
pub enum Wakeup {
    /// The store said that something changed.
    Notified,
    /// A lost connection is back; what happened meanwhile was not announced.
    Reconnected,
    /// Time passed: something became due, or a regular look is.
    Tick,
}

macro_rules! forward_to_pointee {
    ($pointer:ident) => {
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<D: SubscriptionDriver + ?Sized> SubscriptionDriver for $pointer<D> {
            async fn insert_subscription(&self) -> Result<()> {
                (**self).insert_subscription().await
            }

            async fn listen(&self) -> Result<Wakeups> {
                (**self).listen().await
            }

            async fn fetch_pending(&self) -> Result<Option<Delivery>> {
                (**self).fetch_pending().await
            }

            fn fetch_ready(&self) -> Result<Option<Delivery>> {
                (**self).fetch_ready()
            }
        }
    };
}

forward_to_pointee!(Arc);
forward_to_pointee!(Box);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_to_drivers_are_drivers() {
        fn is_driver<D: SubscriptionDriver>() {}
        is_driver::<Arc<dyn SubscriptionDriver>>();
        is_driver::<Box<dyn SubscriptionDriver>>();
        is_driver::<Arc<Box<dyn SubscriptionDriver>>>();
    }
}
