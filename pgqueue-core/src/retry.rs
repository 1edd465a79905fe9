//! [`RetryPolicy`] and [`RetryConfig`]: how a consume stream meets transient errors of its driver.

use std::time::Duration;

use crate::{Error, ErrorKind, Result, exponential::Exponential};

/// How often, and after which delays, something that failed is tried again.
///
/// ```
/// use std::time::Duration;
/// use pgqueue_core::RetryPolicy;
///
/// let policy = RetryPolicy::new(3, Duration::from_millis(10)).with_jitter(0.0);
/// assert_eq!(policy.delay(2), Some(Duration::from_millis(40)));
/// assert_eq!(policy.delay(3), None, "retries are counted from 0");
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryPolicy {
    max_retries: u32,
    delays: Exponential,
}

impl RetryPolicy {
    /// Retries `max_retries` times after the first failure: after `base`, then twice as long each time, 5 s at most, ± 10 %.
    #[must_use]
    pub fn new(max_retries: u32, base: Duration) -> Self {
        Self { max_retries, delays: Exponential { base, multiplier: 2.0, cap: Duration::from_secs(5), jitter: 0.1 } }
    }

    /// Sets the longest delay, before jitter. Default: 5 s.
    #[must_use]
    pub fn with_cap(mut self, cap: Duration) -> Self {
        self.delays.cap = cap;
        self
    }

    /// Sets the factor from one delay to the next, 1 or more. Default: 2.
    #[must_use]
    pub fn with_multiplier(mut self, multiplier: f64) -> Self {
        self.delays.multiplier = multiplier;
        self
    }

    /// Sets the fraction, 0 to 1, by which a delay is made longer or shorter at random. Default: 0.1.
    #[must_use]
    pub fn with_jitter(mut self, jitter: f64) -> Self {
        self.delays.jitter = jitter;
        self
    }

    /// Returns the delay before retry number `retry`, counted from 0, or `None` when the retries are used up.
    #[must_use]
    pub fn delay(&self, retry: u32) -> Option<Duration> {
        (retry < self.max_retries).then(|| self.delays.delay(retry))
    }

    /// How long a recovery must hold before the next failure counts as the first of a new series.
    pub(crate) fn settled_after(&self) -> Duration {
        self.delays.cap
    }
}

/// One [`RetryPolicy`] a class of transient error, and the time limit of every call to a driver.
///
/// | class | default |
/// |---|---|
/// | [`ErrorKind::Connection`] | 20 retries, 100 ms × 2 up to 5 s, ± 10 %: an outage of some 76 s |
/// | [`ErrorKind::Query`] | none: the stream ends |
/// | [`ErrorKind::Timeout`] | 2 retries, 50 ms × 1.5 up to 1 s, ± 20 % |
///
/// An error of fetching or listening that is not [transient](Error::is_transient), or of any other kind, ends the stream at
/// once. Whatever error the wake-ups yield, listening is tried again by the policy for connections, and decides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryConfig {
    connection: Option<RetryPolicy>,
    query: Option<RetryPolicy>,
    timeout: Option<RetryPolicy>,
    time_limit: Duration,
}

/// How long `subscribe` and a bare `Delivery` wait for a driver.
pub(crate) const DEFAULT_TIME_LIMIT: Duration = Duration::from_secs(30);

impl RetryConfig {
    /// Retries nothing: the first error ends the stream.
    #[must_use]
    pub fn never() -> Self {
        Self { connection: None, query: None, timeout: None, time_limit: DEFAULT_TIME_LIMIT }
    }

    /// Sets the policy for lost connections, and for listening again when wake-ups fail or end.
    #[must_use]
    pub fn with_connection(mut self, policy: Option<RetryPolicy>) -> Self {
        self.connection = policy;
        self
    }

    /// Sets the policy for refused requests that the driver calls transient.
    #[must_use]
    pub fn with_query(mut self, policy: Option<RetryPolicy>) -> Self {
        self.query = policy;
        self
    }

    /// Sets the policy for calls that met their time limit.
    #[must_use]
    pub fn with_timeout(mut self, policy: Option<RetryPolicy>) -> Self {
        self.timeout = policy;
        self
    }

    /// Sets how long one fetch, listen or settle may take before it fails with [`ErrorKind::Timeout`] (a settle: with
    /// [`ErrorKind::Unknown`]). Default: 30 s.
    #[must_use]
    pub fn with_time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    pub(crate) fn time_limit(&self) -> Duration {
        self.time_limit
    }

    /// The policy for the wake-ups' connection.
    pub(crate) fn connection(&self) -> Option<RetryPolicy> {
        self.connection
    }

    pub(crate) fn validate(&self) -> Result<()> {
        for (policy, what) in
            [(self.connection, "connection retry"), (self.query, "query retry"), (self.timeout, "timeout retry")]
        {
            policy.map_or(Ok(()), |policy| policy.delays.validate(what))?;
        }
        if self.time_limit.is_zero() {
            return Err(Error::new(ErrorKind::Invalid, "the time limit of driver calls is zero; it must be longer"));
        }
        Ok(())
    }
}

impl Default for RetryConfig {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            connection: Some(RetryPolicy::new(20, ms(100))),
            query: None,
            timeout: Some(RetryPolicy::new(2, ms(50)).with_multiplier(1.5).with_cap(ms(1000)).with_jitter(0.2)),
            time_limit: DEFAULT_TIME_LIMIT,
        }
    }
}

/// How often one sort of call has failed since it last succeeded: each class counts its own.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    connection: u32,
    query: u32,
    timeout: u32,
}

impl Failures {
    /// Counts a failure of a class and returns the pause before the next try, if one is left.
    pub(crate) fn pause(&mut self, config: &RetryConfig, class: ErrorKind) -> Option<Duration> {
        let (policy, failures) = match class {
            ErrorKind::Connection => (config.connection, &mut self.connection),
            ErrorKind::Query => (config.query, &mut self.query),
            ErrorKind::Timeout => (config.timeout, &mut self.timeout),
            _ => return None,
        };
        let delay = policy?.delay(*failures)?;
        *failures += 1;
        Some(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delays(policy: Option<RetryPolicy>) -> Vec<u128> {
        let policy = policy.unwrap().with_jitter(0.0);
        (0..).map_while(|retry| policy.delay(retry)).map(|delay| delay.as_millis()).collect()
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let config = RetryConfig::default();
        let connection = delays(config.connection);
        assert_eq!(connection[..7], [100, 200, 400, 800, 1600, 3200, 5000]);
        assert_eq!((connection.len(), connection[19]), (20, 5000));
        assert_eq!(delays(config.timeout), [50, 75]);
        assert_eq!(config.query, None);
    }

    #[test]
    fn each_class_has_its_policy_and_its_count() {
        let fixed = |millis| Some(RetryPolicy::new(1, Duration::from_millis(millis)).with_jitter(0.0));
        let config = RetryConfig::never().with_connection(fixed(1)).with_query(fixed(2)).with_timeout(fixed(3));
        let mut failures = Failures::default();
        let mut pause = |class| failures.pause(&config, class).map(|pause| pause.as_millis());
        let classes = [ErrorKind::Connection, ErrorKind::Query, ErrorKind::Timeout, ErrorKind::Fatal];
        assert_eq!(classes.map(&mut pause), [Some(1), Some(2), Some(3), None]);
        assert_eq!(classes.map(&mut pause), [None; 4], "there is one retry each");
    }

    #[test]
    fn impossible_values_are_refused() {
        let nan = RetryPolicy::new(1, Duration::ZERO).with_multiplier(f64::NAN);
        for (config, says) in [
            (RetryConfig::default().with_query(Some(nan)), "query retry has a multiplier of NaN; it must be 1 or more"),
            (
                RetryConfig::default().with_timeout(Some(RetryPolicy::new(1, Duration::ZERO).with_jitter(1.5))),
                "timeout retry has a jitter of 1.5; it must lie between 0 and 1",
            ),
            (
                RetryConfig::never().with_time_limit(Duration::ZERO),
                "the time limit of driver calls is zero; it must be longer",
            ),
        ] {
            assert_eq!(config.validate().unwrap_err().to_string(), says);
        }
    }
}
