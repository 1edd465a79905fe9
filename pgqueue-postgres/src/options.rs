//! [`Options`]: how a queue works, on this side of the connection.

use std::time::Duration;

use pgqueue_core::{Error, ErrorKind, Result};

/// How one [`PgQueue`](crate::PgQueue) handle works.
///
/// ```
/// use std::time::Duration;
/// use pgqueue_postgres::Options;
///
/// let options = Options::new().with_poll_interval(Duration::from_secs(5)).with_coalescing(true);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    poll_interval: Duration,
    time_limit: Duration,
    coalescing: bool,
    ringing: bool,
}

impl Options {
    /// Makes the default options.
    #[must_use]
    pub fn new() -> Self {
        Self {
            poll_interval: Duration::from_secs(2),
            time_limit: Duration::from_secs(10),
            coalescing: false,
            ringing: true,
        }
    }

    /// Sets how often an idle consumer looks for messages though nobody rang: after a lost notification, where there are none,
    /// or when the publisher that was to ring for several failed in its commit. All that are idle look in one statement,
    /// which also beats for them, and therefore comes every 2 s, or every third of a lease, even if this is longer. Default: 2 s.
    /// Longer than a minute counts as a minute.
    #[must_use]
    pub fn with_poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval.min(Duration::from_secs(60));
        self
    }

    /// Sets how long the server may take to answer one statement. Default: 10 s.
    #[must_use]
    pub fn with_time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    /// Lets concurrent calls of `publish` share a statement and so a commit. Each still returns only when its messages are
    /// durable. Default: off.
    #[must_use]
    pub fn with_coalescing(mut self, coalescing: bool) -> Self {
        self.coalescing = coalescing;
        self
    }

    /// Sets whether publishing wakes idle consumers by a notification. Without it they find messages by polling; a
    /// transaction that has notified cannot be prepared for two-phase commit. Default: on.
    #[must_use]
    pub fn with_ringing(mut self, ringing: bool) -> Self {
        self.ringing = ringing;
        self
    }

    /// Returns how often an idle consumer looks though nobody rang.
    #[must_use]
    pub fn poll_interval(&self) -> Duration {
        self.poll_interval
    }

    /// Returns how long the server may take to answer one statement.
    #[must_use]
    pub fn time_limit(&self) -> Duration {
        self.time_limit
    }

    /// Returns whether concurrent calls of `publish` share a statement.
    #[must_use]
    pub fn coalescing(&self) -> bool {
        self.coalescing
    }

    /// Returns whether publishing wakes idle consumers.
    #[must_use]
    pub fn ringing(&self) -> bool {
        self.ringing
    }

    pub(crate) fn validate(&self) -> Result<()> {
        for (what, duration) in [("poll interval", self.poll_interval), ("time limit", self.time_limit)] {
            if duration.is_zero() {
                let message = format!("the {what} of the queue is zero; it must be longer");
                return Err(Error::new(ErrorKind::Invalid, message));
            }
        }
        Ok(())
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}
