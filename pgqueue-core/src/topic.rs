//! [`Topic`]: what messages are published to.

use std::time::Duration;

use crate::{Error, ErrorKind, Laggards, Result, Retention, limits::check_name};

/// A topic and its options.
///
/// Topics are made explicitly: publishing or subscribing to one that does not exist is an error everywhere.
///
/// ```
/// use std::time::Duration;
/// use pgqueue_core::Topic;
///
/// let topic = Topic::new("orders").with_dedup_window(Duration::from_secs(3600));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    name: String,
    buckets: u16,
    dedup_window: Duration,
    retention: Retention,
}

impl Topic {
    /// Names a topic: 1 to 255 bytes of UTF-8 without NUL, taken literally.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            buckets: 16,
            dedup_window: Duration::from_secs(24 * 60 * 60),
            retention: Retention::default(),
        }
    }

    /// Sets into how many buckets keys are hashed: a by-key subscription has so many consumers at work at a time, and looking for
    /// a message costs a little for each bucket. Fixed once the topic exists. Default: 16.
    #[must_use]
    pub fn with_buckets(mut self, buckets: u16) -> Self {
        self.buckets = buckets;
        self
    }

    /// Sets for how long a dedup id is remembered. The last creator's value holds. Default: 24 h.
    #[must_use]
    pub fn with_dedup_window(mut self, window: Duration) -> Self {
        self.dedup_window = window;
        self
    }

    /// Sets what is kept of the messages that all subscriptions have passed. The last creator's value holds. Default:
    /// [`Retention::nothing`].
    #[must_use]
    pub fn with_retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns into how many buckets keys are hashed.
    #[must_use]
    pub fn buckets(&self) -> u16 {
        self.buckets
    }

    /// Returns for how long a dedup id is remembered.
    #[must_use]
    pub fn dedup_window(&self) -> Duration {
        self.dedup_window
    }

    /// Returns what is kept of the messages that all subscriptions have passed.
    #[must_use]
    pub fn retention(&self) -> Retention {
        self.retention
    }

    /// Checks the name and the options, as drivers do before they create the topic.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`], naming the option that cannot be used.
    pub fn validate(&self) -> Result<()> {
        check_name("topic", &self.name)?;
        let refused = |problem| Error::new(ErrorKind::Invalid, format!("topic {:?} {problem}", self.name));
        if self.buckets == 0 {
            return Err(refused("has 0 buckets; it must have 1 or more"));
        }
        if self.retention.laggards() == Laggards::Cut && self.retention.keeps_nothing() {
            return Err(refused("cuts laggards and keeps nothing; retain everything, or up to a limit above 0"));
        }
        Ok(())
    }

    /// Checks that `wanted` may be created where this topic exists: its buckets must be the same.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`], naming the difference.
    pub fn ensure_same_identity(&self, wanted: &Self) -> Result<()> {
        if self.buckets == wanted.buckets {
            return Ok(());
        }
        let message = format!(
            "topic {:?} exists with {} buckets and {} are wanted; their number is fixed once the topic exists",
            self.name, self.buckets, wanted.buckets
        );
        Err(Error::new(ErrorKind::Conflict, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_that_would_cut_everything_are_refused() {
        let cutting =
            |retention: Retention| Topic::new("t").with_retention(retention.with_laggards(Laggards::Cut)).validate();
        let error = cutting(Retention::nothing()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().starts_with("topic \"t\" cuts laggards and keeps nothing"), "{error}");
        cutting(Retention::everything().with_max_messages(0)).unwrap_err();
        cutting(Retention::everything().with_max_bytes(0)).unwrap_err();

        cutting(Retention::everything()).unwrap();
        cutting(Retention::nothing().with_max_age(Duration::from_nanos(1))).unwrap();
        Topic::new("t").with_retention(Retention::nothing()).validate().unwrap();
    }
}
