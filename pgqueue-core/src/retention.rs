//! [`Retention`]: how long a topic keeps what all its subscriptions have passed.

use std::time::Duration;

/// Until when a topic keeps messages that all its subscriptions have passed, for those that start later.
///
/// A message goes once it is beyond any of the limits; it may stay for a while longer. What a subscription has not passed is
/// kept for it, however old.
///
/// ```
/// use std::time::Duration;
/// use pgqueue_core::{Retention, Topic};
///
/// let week = Retention::everything().with_max_age(Duration::from_secs(7 * 24 * 60 * 60)).with_max_messages(1_000_000);
/// let topic = Topic::new("orders").with_retention(week);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Retention {
    max_age: Option<Duration>,
    max_messages: Option<u64>,
    max_bytes: Option<u64>,
}

impl Retention {
    /// Keeps nothing for longer than its subscriptions need it.
    #[must_use]
    pub const fn nothing() -> Self {
        Self { max_age: Some(Duration::ZERO), max_messages: None, max_bytes: None }
    }

    /// Keeps everything, up to the limits that follow.
    #[must_use]
    pub const fn everything() -> Self {
        Self { max_age: None, max_messages: None, max_bytes: None }
    }

    /// Keeps nothing that was published longer ago.
    #[must_use]
    pub const fn with_max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// Keeps no more than the latest so many messages.
    #[must_use]
    pub const fn with_max_messages(mut self, messages: u64) -> Self {
        self.max_messages = Some(messages);
        self
    }

    /// Keeps no more messages than the latest whose payloads have so many bytes together.
    #[must_use]
    pub const fn with_max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// Returns how old a message may become; `None` without a limit.
    #[must_use]
    pub const fn max_age(&self) -> Option<Duration> {
        self.max_age
    }

    /// Returns how many messages are kept; `None` without a limit.
    #[must_use]
    pub const fn max_messages(&self) -> Option<u64> {
        self.max_messages
    }

    /// Returns how many bytes of payload are kept; `None` without a limit.
    #[must_use]
    pub const fn max_bytes(&self) -> Option<u64> {
        self.max_bytes
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self::nothing()
    }
}
