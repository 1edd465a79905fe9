//! [`Subscription`]: who wants which messages, and how.

use std::{fmt, time::Duration};

use crate::{Backoff, Consumers, Error, ErrorKind, Position, Result, Selector, limits::check_name};

/// A named subscription of a topic, and its options.
///
/// Its topic, [order](Order) and [selector](Selector) are its identity: inserting the same name again with others is an
/// error. Batch, prefetch, lease, backoff, [consumers](Consumers) and workers are operational: the last inserter's hold, from the
/// next delivery on.
///
/// ```
/// use std::time::Duration;
/// use pgqueue_core::{Backoff, Order, Subscription};
///
/// let subscription = Subscription::new("invoices", "orders")
///     .with_order(Order::ByKey)
///     .with_backoff(Backoff::default().with_max_attempts(5))
///     .with_lease(Duration::from_secs(20));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Subscription {
    name: String,
    topic: String,
    order: Order,
    batch: usize,
    prefetch: usize,
    lease: Duration,
    backoff: Backoff,
    start: Start,
    selector: Selector,
    consumers: Consumers,
    workers: usize,
}

/// From where on a subscription gets its topic's messages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive] // points in time may come
pub enum Start {
    /// What becomes visible after it was inserted.
    #[default]
    Now,
    /// From the oldest message that the topic [retains](crate::Topic::with_retention), which may be none: by default a topic
    /// keeps nothing that all its subscriptions have passed.
    Beginning,
    /// Strictly after a [position](crate::Message::position) that came from a subscription in stable total order if this is one,
    /// and else from one that is not: all that was not visible yet when that message was handed out,
    /// and all that comes behind it.
    After(Position),
}

/// In which order a subscription's messages are handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive] // event logs may need a stable order of their own
pub enum Order {
    /// In any order, in parallel.
    #[default]
    Unordered,
    /// Strictly in publishing order among messages of one key, through batches, retries and crashes; other keys go on.
    ///
    /// Keys share the topic's [buckets](crate::Topic::with_buckets), of which each is with one consumer at a time: a message that
    /// fails holds back its bucket until it succeeds or is dead-lettered. While none fails, a message waits for those of its key;
    /// in memory, and in batches, for those of its bucket. A message without a key waits for none.
    ByKey,
    /// Strictly in publishing order, one delivery at a time. What is committed late comes late.
    Total,
    /// Strictly in one order that is the same for every subscription, whenever and wherever it starts, one delivery at a time:
    /// for those who rebuild a state from a log.
    ///
    /// Where publishers have transactions, it is by transaction, and waits for those that began earlier and are still open.
    /// Only what was dead-lettered and redriven comes behind its place.
    StableTotal,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unordered => "unordered",
            Self::ByKey => "by key",
            Self::Total => "total",
            Self::StableTotal => "stable total",
        })
    }
}

impl Subscription {
    /// Names a subscription of a topic: unordered, one message a delivery, with the default lease and [`Backoff`].
    ///
    /// Both names have 1 to 255 bytes of UTF-8 without NUL and are taken literally. The name is unique in the queue.
    pub fn new(name: impl Into<String>, topic: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            topic: topic.into(),
            order: Order::default(),
            batch: 1,
            prefetch: 100,
            lease: Duration::from_secs(6),
            backoff: Backoff::default(),
            start: Start::default(),
            selector: Selector::default(),
            consumers: Consumers::default(),
            workers: 1,
        }
    }

    /// Sets the order. Default: [`Order::Unordered`].
    #[must_use]
    pub fn with_order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Hands out up to `messages` messages in one delivery, settled as one, never waiting for a full one. Default: 1.
    #[must_use]
    pub fn with_batch(mut self, messages: usize) -> Self {
        self.batch = messages;
        self
    }

    /// Lets a consumer take up to `messages` messages at a time in advance, where a driver's store makes that worthwhile, and
    /// the next when half of them are delivered, so that it may have half as many again. Others wait for those; a consumer that stops
    /// gives them back at once. Default: 100.
    #[must_use]
    pub fn with_prefetch(mut self, messages: usize) -> Self {
        self.prefetch = messages;
        self
    }

    /// Sets for how long a consumer may be silent before its deliveries go to others. Default: 6 s.
    ///
    /// Living consumers beat by themselves, so handlers may run for longer.
    #[must_use]
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Sets when requeued messages come again, and when they go to the dead letters. Default: [`Backoff::default`].
    #[must_use]
    pub fn with_backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Sets from where on it gets messages. Counts only when it is first inserted; later, a queue can move it. Default: [`Start::Now`].
    #[must_use]
    pub fn with_start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Sets which messages it gets. Default: [`Selector::all`].
    #[must_use]
    pub fn with_selector(mut self, selector: Selector) -> Self {
        self.selector = selector;
        self
    }

    /// Sets who of its consumers gets messages. Default: [`Consumers::Competing`].
    #[must_use]
    pub fn with_consumers(mut self, consumers: Consumers) -> Self {
        self.consumers = consumers;
        self
    }

    /// Sets how many workers each process that serves it through a [`Registry`](crate::Registry) runs for it. Default: 1.
    #[must_use]
    pub fn with_workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Returns the subscription's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the name of the topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Returns the order.
    #[must_use]
    pub fn order(&self) -> Order {
        self.order
    }

    /// Returns how many messages one delivery may hold.
    #[must_use]
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Returns how many messages a consumer may take at a time in advance.
    #[must_use]
    pub fn prefetch(&self) -> usize {
        self.prefetch
    }

    /// Returns for how long a consumer may be silent before its deliveries go to others.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// Returns when requeued messages come again.
    #[must_use]
    pub fn backoff(&self) -> &Backoff {
        &self.backoff
    }

    /// Returns from where on it gets messages, where that is known: of a subscription that a queue lists, it is the default.
    #[must_use]
    pub fn start(&self) -> &Start {
        &self.start
    }

    /// Returns which messages it gets.
    #[must_use]
    pub fn selector(&self) -> &Selector {
        &self.selector
    }

    /// Returns who of its consumers gets messages.
    #[must_use]
    pub fn consumers(&self) -> Consumers {
        self.consumers
    }

    /// Returns how many workers each process that serves it through a [`Registry`](crate::Registry) runs for it.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Checks the names and the options, as drivers do before they insert the subscription.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`], naming the subscription and the option that cannot be used.
    pub fn validate(&self) -> Result<()> {
        check_name("subscription", &self.name)?;
        let refused = |problem: &str| Error::new(ErrorKind::Invalid, format!("subscription {:?} {problem}", self.name));
        check_name("topic", &self.topic)?;
        if self.batch == 0 {
            return Err(refused("has a batch of 0 messages; it must be 1 or more"));
        }
        if self.prefetch == 0 {
            return Err(refused("has a prefetch of 0 messages; it must be 1 or more"));
        }
        if self.workers == 0 {
            return Err(refused("has 0 workers; it must have 1 or more"));
        }
        if self.workers > 1 && self.consumers == Consumers::Exclusive {
            return Err(refused("is exclusive and has several workers; it must have 1, or be single active"));
        }
        if self.lease.is_zero() {
            return Err(refused("has a lease of zero; it must be longer than a consumer's pause between two beats"));
        }
        let unusable = |error| refused(&format!("cannot be used: {error}"));
        self.backoff.validate().map_err(unusable)?;
        self.selector.validate().map_err(unusable)
    }

    /// Checks that `wanted` may be inserted where this subscription exists: topic, order and selector must be the same.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`], naming the difference.
    pub fn ensure_same_identity(&self, wanted: &Self) -> Result<()> {
        let difference = if self.topic != wanted.topic {
            format!("its topic is {:?}, not {:?}", self.topic, wanted.topic)
        } else if self.order != wanted.order {
            format!("its order is {}, not {}", self.order, wanted.order)
        } else if !self.selector.is_same(&wanted.selector) {
            format!("its selector is {}, not {}", self.selector, wanted.selector)
        } else {
            return Ok(());
        };
        let message = format!(
            "subscription {:?} exists and differs: {difference}; delete it first or choose another name",
            self.name
        );
        Err(Error::new(ErrorKind::Conflict, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unusable_options_are_refused_by_name() {
        let subscription = || Subscription::new("s", "t");
        for (bad, says) in [
            (Subscription::new("", "t"), "subscription \"\" is empty"),
            (Subscription::new("s", "x".repeat(300)), "has 300 bytes; the limit is 255"),
            (subscription().with_batch(0), "subscription \"s\" has a batch of 0 messages"),
            (subscription().with_prefetch(0), "subscription \"s\" has a prefetch of 0 messages"),
            (subscription().with_workers(0), "subscription \"s\" has 0 workers"),
            (
                subscription().with_workers(2).with_consumers(Consumers::Exclusive),
                "subscription \"s\" is exclusive and has several workers",
            ),
            (subscription().with_lease(Duration::ZERO), "subscription \"s\" has a lease of zero"),
            (
                subscription().with_backoff(Backoff::default().with_max_attempts(0)),
                "subscription \"s\" cannot be used: backoff allows 0 attempts",
            ),
            (subscription().with_backoff(Backoff::default().with_multiplier(0.5)), "backoff has a multiplier of 0.5"),
        ] {
            let error = bad.validate().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains(says), "{error}");
        }
        subscription().validate().unwrap();
    }

    #[test]
    fn identity_is_topic_order_and_selector() {
        let existing = Subscription::new("s", "t");
        existing.ensure_same_identity(&existing.clone().with_start(Start::Beginning)).unwrap();
        existing.ensure_same_identity(&existing.clone().with_batch(7).with_lease(Duration::from_secs(1))).unwrap();
        for (wanted, says) in [
            (Subscription::new("s", "u"), "its topic is \"t\", not \"u\""),
            (existing.clone().with_order(Order::Total), "its order is unordered, not total"),
            (
                existing.clone().with_selector(Selector::kind("k")),
                "its selector is {\"and\":[]}, not {\"kinds\":[\"k\"]}",
            ),
        ] {
            let error = existing.ensure_same_identity(&wanted).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict);
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}
