//! [`Retention`]: how long a topic keeps its messages.

use std::time::Duration;

/// Until when a topic keeps messages that all its subscriptions have passed, for those that start later.
///
/// A message goes once it is beyond any of the limits; it may stay for a while longer. What a subscription has not passed is
/// kept for it, however old, unless [laggards are cut](Self::with_laggards).
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
    laggards: Laggards,
}

/// What becomes of messages that are beyond a limit of their topic's [`Retention`] while a subscription has not passed them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive] // there may be limits in between
pub enum Laggards {
    /// They are kept, however many they become.
    #[default]
    Hold,
    /// They are deleted. The subscription is cut off: its consumers' streams end with
    /// [`Truncated`](crate::ErrorKind::Truncated) until somebody moves it, and its
    /// [statistics](crate::SubscriptionStats::cut) count what it lost. What is in a consumer's hands, waits for a retry or is a
    /// dead letter is not concerned.
    ///
    /// Not together with a limit of 0, which would delete what nobody had the time to take.
    Cut,
}

impl Retention {
    /// Keeps nothing for longer than its subscriptions need it.
    #[must_use]
    pub const fn nothing() -> Self {
        Self { max_age: Some(Duration::ZERO), max_messages: None, max_bytes: None, laggards: Laggards::Hold }
    }

    /// Keeps everything, up to the limits that follow.
    #[must_use]
    pub const fn everything() -> Self {
        Self { max_age: None, max_messages: None, max_bytes: None, laggards: Laggards::Hold }
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

    /// Sets what becomes of messages beyond a limit that a subscription has not passed. Default: [`Laggards::Hold`].
    #[must_use]
    pub const fn with_laggards(mut self, laggards: Laggards) -> Self {
        self.laggards = laggards;
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

    /// Returns what becomes of messages beyond a limit that a subscription has not passed.
    #[must_use]
    pub const fn laggards(&self) -> Laggards {
        self.laggards
    }

    /// Whether a limit is 0.
    pub(crate) fn keeps_nothing(&self) -> bool {
        self.max_age == Some(Duration::ZERO) || self.max_messages == Some(0) || self.max_bytes == Some(0)
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self::nothing()
    }
}
