//! [`Restarts`]: how long a crashed worker waits before it is restarted, and when there were too many crashes.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{Error, ErrorKind, Result, exponential::Exponential};

/// How many crashes a pool takes within what time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RestartLimit {
    pub(crate) crashes: u32,
    pub(crate) within: Duration,
}

/// The shortest pause: whatever the limit, a worker that crashes at once does not spin.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

impl RestartLimit {
    pub(crate) fn validate(&self) -> Result<()> {
        if self.within.is_zero() {
            return Err(Error::new(
                ErrorKind::Invalid,
                "the pool counts crashes within no time; the time of its restart limit must be longer than zero",
            ));
        }
        Ok(())
    }

    /// The error of a pool that has failed with this crash.
    pub(crate) fn failure(&self, crash: Arc<Error>) -> Error {
        let Self { crashes, within } = self;
        let message = match is_cured_by_restart(&crash) {
            true => format!("the pool's workers crashed more than {crashes} times within {within:?}"),
            false => "a worker of the pool crashed for a reason that no restart cures".to_owned(),
        };
        Error::new(ErrorKind::Fatal, message).with_shared_source(crash)
    }

    /// The pause before a restart, by how many crashes there were shortly before.
    fn pause(&self, earlier: usize) -> Duration {
        // So short that a single worker that always crashes at once reaches the limit.
        let cap = (self.within / self.crashes.saturating_mul(2).max(1)).clamp(SHORTEST, LONGEST);
        let delays = Exponential { base: SHORTEST, multiplier: 2.0, cap, jitter: 0.1 };
        delays.delay(u32::try_from(earlier).unwrap_or(u32::MAX))
    }
}

/// Whether a crash may be met by a restart. One would insert a subscription that was deleted again.
fn is_cured_by_restart(crash: &Error) -> bool {
    match crash.kind() {
        ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Conflict | ErrorKind::Truncated => false,
        ErrorKind::Connection
        | ErrorKind::Query
        | ErrorKind::Timeout
        | ErrorKind::Fatal
        | ErrorKind::Decode
        | ErrorKind::Unrouted
        | ErrorKind::LeaseLost
        | ErrorKind::Unknown
        | ErrorKind::Requeued
        | ErrorKind::Handler
        | ErrorKind::Panic => true,
    }
}

impl Default for RestartLimit {
    fn default() -> Self {
        Self { crashes: 10, within: Duration::from_secs(60) }
    }
}

/// The crashes of a pool since it was started, as far as they still count.
#[derive(Debug)]
pub(crate) struct Restarts {
    limit: RestartLimit,
    /// When they happened; at most one more than the limit.
    recent: VecDeque<Instant>,
}

impl Restarts {
    pub(crate) fn new(limit: RestartLimit) -> Self {
        Self { limit, recent: VecDeque::new() }
    }

    /// Counts a crash and returns the pause before the restart, or `None` if there is to be none.
    pub(crate) fn pause_after(&mut self, crash: &Error, now: Instant) -> Option<Duration> {
        if !is_cured_by_restart(crash) {
            return None;
        }
        while self.recent.front().is_some_and(|crash| now.duration_since(*crash) >= self.limit.within) {
            self.recent.pop_front();
        }
        let earlier = self.recent.len();
        self.recent.push_back(now);
        (u32::try_from(earlier).unwrap_or(u32::MAX) < self.limit.crashes).then(|| self.limit.pause(earlier))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn restarts(crashes: u32, within: Duration) -> Restarts {
        Restarts::new(RestartLimit { crashes, within })
    }

    fn crash() -> Error {
        Error::new(ErrorKind::Panic, "boom")
    }

    #[test]
    fn the_limit_counts_crashes_within_the_time_only() {
        let mut restarts = restarts(2, 60 * SECOND);
        let start = Instant::now();
        let mut is_restarted = |second| restarts.pause_after(&crash(), start + second * SECOND).is_some();
        assert!(is_restarted(0) && is_restarted(30));
        assert!(is_restarted(60), "the first is 60 s old and no longer counts");
        assert!(!is_restarted(61), "there were two within 60 s");
    }

    #[test]
    fn pauses_grow_with_recent_crashes_up_to_what_the_limit_leaves() {
        let limit = RestartLimit::default();
        for (earlier, seconds) in [(0, 0.1), (1, 0.2), (4, 1.6), (5, 3.0), (9, 3.0)] {
            let pause = limit.pause(earlier).as_secs_f64();
            assert!((pause - seconds).abs() <= 0.1 * seconds + 1e-6, "{pause} after {earlier}");
        }
    }

    #[test]
    fn a_worker_that_always_crashes_reaches_the_limit_and_does_not_spin() {
        for (crashes, within) in [(0, SECOND), (1, SECOND), (10, 60 * SECOND), (100, 60 * SECOND), (3, Duration::MAX)] {
            let mut restarts = restarts(crashes, within);
            let mut now = Instant::now();
            let mut restarted = 0;
            while let Some(pause) = restarts.pause_after(&crash(), now) {
                assert!(pause >= SHORTEST.mul_f64(0.89), "{pause:?}");
                assert!(pause <= LONGEST.mul_f64(1.11), "{pause:?}");
                now += pause;
                restarted += 1;
                assert!(restarted <= crashes);
            }
            assert_eq!(restarted, crashes);
        }
    }
}
