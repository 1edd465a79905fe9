//! [`Backoff`]: when a requeued message comes again, and when it stops coming.

use std::time::Duration;

use crate::{Error, ErrorKind, Result, exponential::Exponential};

/// When a requeued message comes again, and after how many attempts it goes to the dead letters.
///
/// The default: 10 attempts; 1 s after the first, twice as long after each further one, 5 min at most, ± 10 % at random.
///
/// ```
/// use std::time::Duration;
/// use pgqueue_core::Backoff;
///
/// let backoff = Backoff::default().with_jitter(0.0);
/// let delays: Vec<_> = (1..=3).map(|attempt| backoff.delay(attempt).as_secs()).collect();
/// assert_eq!(delays, [1, 2, 4]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    max_attempts: u32,
    delays: Exponential,
}

impl Backoff {
    /// The same delay after every attempt, without jitter.
    #[must_use]
    pub fn fixed(delay: Duration) -> Self {
        Self::default().with_base(delay).with_cap(delay).with_multiplier(1.0).with_jitter(0.0)
    }

    /// Sets how often a message is handed out before it goes to the dead letters, the first time included. Default: 10.
    #[must_use]
    pub fn with_max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// Sets the delay after the first attempt. Default: 1 s.
    #[must_use]
    pub fn with_base(mut self, base: Duration) -> Self {
        self.delays.base = base;
        self
    }

    /// Sets the factor from one delay to the next, 1 or more. Default: 2.
    #[must_use]
    pub fn with_multiplier(mut self, multiplier: f64) -> Self {
        self.delays.multiplier = multiplier;
        self
    }

    /// Sets the longest delay, before jitter. Default: 5 min.
    #[must_use]
    pub fn with_cap(mut self, cap: Duration) -> Self {
        self.delays.cap = cap;
        self
    }

    /// Sets the fraction, 0 to 1, by which a delay is made longer or shorter at random. Default: 0.1.
    #[must_use]
    pub fn with_jitter(mut self, jitter: f64) -> Self {
        self.delays.jitter = jitter;
        self
    }

    /// Returns how often a message is handed out before it goes to the dead letters.
    #[must_use]
    pub fn max_attempts(&self) -> u32 {
        self.max_attempts
    }

    /// Returns the delay after the first attempt, before jitter.
    #[must_use]
    pub fn base(&self) -> Duration {
        self.delays.base
    }

    /// Returns the factor from one delay to the next.
    #[must_use]
    pub fn multiplier(&self) -> f64 {
        self.delays.multiplier
    }

    /// Returns the longest delay, before jitter.
    #[must_use]
    pub fn cap(&self) -> Duration {
        self.delays.cap
    }

    /// Returns the fraction by which a delay is made longer or shorter at random.
    #[must_use]
    pub fn jitter(&self) -> f64 {
        self.delays.jitter
    }

    /// Returns the delay after attempt number `attempt`, counted from 1.
    #[must_use]
    pub fn delay(&self, attempt: u32) -> Duration {
        self.delays.delay(attempt.saturating_sub(1))
    }

    /// Checks that it can be followed. For authors of drivers, whose options hold one.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if it allows no attempt, if its multiplier is below 1, or if its jitter is not between 0 and 1.
    pub fn validate(&self) -> Result<()> {
        if self.max_attempts == 0 {
            return Err(Error::new(ErrorKind::Invalid, "backoff allows 0 attempts; it must allow 1 or more"));
        }
        self.delays.validate("backoff")
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            max_attempts: 10,
            delays: Exponential {
                base: Duration::from_secs(1),
                multiplier: 2.0,
                cap: Duration::from_secs(300),
                jitter: 0.1,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backoff_can_be_taken_apart_and_rebuilt() {
        let backoff = Backoff::default().with_base(Duration::from_millis(7)).with_multiplier(1.5).with_jitter(0.3);
        let rebuilt = Backoff::default()
            .with_max_attempts(backoff.max_attempts())
            .with_base(backoff.base())
            .with_multiplier(backoff.multiplier())
            .with_cap(backoff.cap())
            .with_jitter(backoff.jitter());
        assert_eq!(rebuilt, backoff);
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let backoff = Backoff::default().with_jitter(0.0);
        assert_eq!((backoff.max_attempts(), Backoff::default().jitter()), (10, 0.1));
        assert_eq!([1, 2, 9, 10].map(|attempt| backoff.delay(attempt).as_secs()), [1, 2, 256, 300]);
        assert_eq!(Backoff::fixed(Duration::from_secs(7)).delay(10), Duration::from_secs(7));
    }
}
