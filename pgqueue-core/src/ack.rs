//! [`Ack`]: how a handler answers a delivery.

use std::time::Duration;

/// The answer to a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive] // more answers may come
pub enum Ack {
    /// Done: the message never comes again to this subscription.
    Ok,
    /// Not done: the message comes again.
    Requeue(Requeue),
    /// Never to be done: the message goes to the dead letters now.
    Reject {
        /// Why, for whoever looks at the dead letters.
        reason: String,
    },
}

impl Ack {
    /// Requeues by the subscription's backoff.
    #[must_use]
    pub fn requeue() -> Self {
        Self::Requeue(Requeue::default())
    }

    /// Requeues so that the message comes again after `delay`.
    #[must_use]
    pub fn requeue_after(delay: Duration) -> Self {
        Self::Requeue(Requeue::default().with_delay(delay))
    }

    /// Sends the message to the dead letters.
    pub fn reject(reason: impl Into<String>) -> Self {
        Self::Reject { reason: reason.into() }
    }

    /// What it is called in events.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Requeue(_) => "requeue",
            Self::Reject { .. } => "reject",
        }
    }
}

/// When a requeued message comes again, and why it was requeued.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive] // so that fields can be added
pub struct Requeue {
    /// How long the message waits. Default: `None`, by the subscription's [`Backoff`](crate::Backoff).
    pub delay: Option<Duration>,
    /// Why, kept with the dead letter if this was the last attempt. Default: `None`.
    pub reason: Option<String>,
    /// What made it come to this, for stores that tell such messages apart. Default: [`RequeueCause::Answer`].
    pub cause: RequeueCause,
}

/// What made a delivery be requeued. No driver treats the message otherwise for it; a store may file it under another name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive] // more may be worth telling apart
pub enum RequeueCause {
    /// Whoever handled it answered so, or failed.
    #[default]
    Answer,
    /// Its handler met the [time limit](crate::Worker::with_timeout).
    Timeout,
}

impl Requeue {
    /// Sets how long the message waits.
    #[must_use]
    pub fn with_delay(mut self, delay: Duration) -> Self {
        self.delay = Some(delay);
        self
    }

    /// Sets why.
    #[must_use]
    pub fn with_reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Sets what made it come to this.
    #[must_use]
    pub fn with_cause(mut self, cause: RequeueCause) -> Self {
        self.cause = cause;
        self
    }
}
