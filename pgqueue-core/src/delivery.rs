//! [`Delivery`]: one handing-out of one message or a batch, to be settled once.

use std::{any::Any, fmt, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use serde::de::DeserializeOwned;

use crate::{
    Ack, Acker, Error, ErrorKind, Message, Operation, Result, batch::decode_batch, call::call_driver, meter::Stopwatch,
    requeue_watch::RequeueWatch, retry::DEFAULT_TIME_LIMIT, telemetry,
};

/// One message, or a batch, handed to one consumer, who answers with [`ok`](Self::ok), [`requeue`](Self::requeue) or
/// [`settle`](Self::settle).
///
/// Settling consumes the delivery, so that it cannot happen twice. Dropping a delivery is the same as
/// [`requeue`](Self::requeue) without delay, minus the error: the message comes again at once and the attempt counts.
#[must_use = "a dropped delivery is requeued: settle it with `ok`, `requeue` or `settle`"]
pub struct Delivery {
    messages: Messages,
    pub(crate) subscription: Option<Arc<str>>,
    acker: Box<dyn Acker>,
    time_limit: Duration,
    /// Tells the stream of a requeue where that should end it. Declared last: it fires after the acker released.
    watch: Option<RequeueWatch>,
}

enum Messages {
    One(Message),
    /// Never empty.
    Batch(Vec<Message>),
}

impl Messages {
    fn as_slice(&self) -> &[Message] {
        match self {
            Self::One(message) => std::slice::from_ref(message),
            Self::Batch(messages) => messages,
        }
    }
}

impl Delivery {
    /// Hands out one message. For authors of drivers.
    pub fn new(message: Message, acker: impl Acker) -> Self {
        Self::with_messages(Messages::One(message), acker)
    }

    /// Hands out several messages of one subscription that are settled as one. For authors of drivers, who use it for
    /// every subscription with a batch of more than 1, also when a single message is there.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if `messages` is empty; the acker is dropped.
    pub fn batch(messages: Vec<Message>, acker: impl Acker) -> Result<Self> {
        if messages.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "a batch delivery without messages; return none instead"));
        }
        Ok(Self::with_messages(Messages::Batch(messages), acker))
    }

    fn with_messages(messages: Messages, acker: impl Acker) -> Self {
        Self { messages, subscription: None, acker: Box::new(acker), time_limit: DEFAULT_TIME_LIMIT, watch: None }
    }

    /// Says which subscription it is a delivery of, for logs, traces and metrics. For authors of drivers. Default: that is not
    /// known.
    pub fn for_subscription(mut self, name: impl Into<Arc<str>>) -> Self {
        self.subscription = Some(name.into());
        self
    }

    /// Returns the name of the subscription, if the driver says it.
    #[must_use]
    pub fn subscription(&self) -> Option<&str> {
        self.subscription.as_deref()
    }

    /// Returns the message, of a batch the first.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.messages()[0]
    }

    /// Returns all messages, in order: one, unless the subscription asks for batches.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        self.messages.as_slice()
    }

    /// Reads the payload as JSON; those of a batch as the elements of a sequence, such as a `Vec`.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`], naming the message that cannot be read. The delivery is untouched: dropping it requeues.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T> {
        match &self.messages {
            Messages::One(message) => message.json(),
            Messages::Batch(messages) => decode_batch(messages),
        }
    }

    /// Resolves when this consumer's lease is gone: the message is or was handed to another, and settling it would fail
    /// with [`ErrorKind::LeaseLost`]. With drivers that have no leases, never. Once the delivery is settled, it says nothing.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub fn lease_lost(&self) -> BoxFuture<'static, ()> {
        self.acker.lease_lost()
    }

    /// Answers OK: the message never comes again to this subscription.
    ///
    /// # Errors
    /// As [`settle`](Self::settle).
    ///
    /// # Cancel safety
    /// As [`settle`](Self::settle).
    pub async fn ok(self) -> Result<()> {
        self.settle(Ack::Ok).await
    }

    /// Answers Requeue: the message comes again by the subscription's backoff.
    ///
    /// # Errors
    /// As [`settle`](Self::settle).
    ///
    /// # Cancel safety
    /// As [`settle`](Self::settle).
    pub async fn requeue(self) -> Result<()> {
        self.settle(Ack::requeue()).await
    }

    /// Answers the delivery, all messages of a batch as one. Runs on tokio, with time enabled, as all of settling does.
    ///
    /// # Errors
    /// Whatever the error, the message is safe and comes again unless the answer took effect.
    /// [`ErrorKind::LeaseLost`]: it belongs to somebody else by now, and the answer changed nothing.
    /// [`ErrorKind::NotFound`]: the subscription is gone.
    /// [`ErrorKind::Unknown`]: the answer may or may not have arrived.
    ///
    /// # Cancel safety
    /// Dropping the future means either outcome: the answer took effect, or the message comes again.
    pub async fn settle(self, ack: Ack) -> Result<()> {
        let Self { messages, subscription, acker, time_limit, watch } = self;
        let stopwatch = Stopwatch::start();
        let answer = ack.name();
        let requeue_watch = match &ack {
            Ack::Requeue(_) => watch,
            Ack::Ok | Ack::Reject { .. } => {
                watch.into_iter().for_each(RequeueWatch::disarm);
                None
            }
        };
        let settled = call_driver(Operation::Settle, time_limit, async { acker.settle(ack).await }).await;
        drop(requeue_watch); // only now: the stream may end once the message is back
        if settled.is_ok() {
            telemetry::settled(messages.as_slice(), subscription.as_deref(), answer, stopwatch);
        }
        settled
    }

    /// Gives up the delivery for the driver's own acker, to settle it in a way that only that driver knows, such as inside
    /// a transaction. For authors of drivers.
    ///
    /// # Errors
    /// The delivery itself, if its acker is not an `A`.
    pub fn try_into_acker<A: Acker>(self) -> Result<Box<A>, Self> {
        let any: &dyn Any = &*self.acker;
        if !any.is::<A>() {
            return Err(self);
        }
        self.watch.into_iter().for_each(RequeueWatch::disarm);
        let any: Box<dyn Any> = self.acker;
        Ok(any.downcast().unwrap_or_else(|_| unreachable!("its type was checked above")))
    }

    /// Puts another acker around this one, which it settles, drops or keeps in its own way. For authors of drivers that wrap
    /// another.
    pub fn map_acker<A: Acker>(self, wrap: impl FnOnce(Box<dyn Acker>) -> A) -> Self {
        Self { acker: Box::new(wrap(self.acker)), ..self }
    }

    /// Lets settling take at most `limit`, and reports a requeue to `watch`.
    pub(crate) fn attach(mut self, limit: Duration, watch: Option<RequeueWatch>) -> Self {
        self.time_limit = limit;
        self.watch = watch;
        telemetry::delivered(&self);
        self
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery").field("messages", &self.messages()).finish_non_exhaustive()
    }
}
