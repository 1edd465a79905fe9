//! [`Limits`]: from when on a registry finds something amiss.

use std::time::{Duration, SystemTime};

use crate::{Finding, HorizonHolder, SubscriptionStats};

/// The limits above which something is a finding.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) waiting: u64,
    pub(crate) oldest: Duration,
    pub(crate) horizon_age: Duration,
    pub(crate) horizon_transactions: u64,
}

impl Limits {
    /// What the statistics of a subscription say that should not be.
    pub(crate) fn judge(&self, stats: SubscriptionStats) -> impl Iterator<Item = Finding> + use<> {
        let SubscriptionStats { name, waiting, waiting_is_exact, oldest, cut, .. } = stats;
        let many = waiting > self.waiting || (waiting == self.waiting && !waiting_is_exact);
        let old = oldest.is_some_and(|oldest| oldest > self.oldest);
        let lagging =
            (many || old).then(|| Finding::Lagging { subscription: name.clone(), waiting, waiting_is_exact, oldest });
        let cut = (cut > 0).then_some(Finding::Cut { subscription: name, messages: cut });
        lagging.into_iter().chain(cut)
    }

    /// Whether somebody has held the horizon for too long by now.
    pub(crate) fn is_exceeded_by(&self, holder: &HorizonHolder, now: SystemTime) -> bool {
        let age = holder.since.and_then(|since| now.duration_since(since).ok());
        holder.age > self.horizon_transactions || age.is_some_and(|age| age > self.horizon_age)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            waiting: 10_000,
            oldest: Duration::from_secs(5 * 60),
            horizon_age: Duration::from_secs(60 * 60),
            horizon_transactions: 1_000_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_within_the_limits_is_no_finding() {
        let findings = |waiting, waiting_is_exact, oldest, cut| {
            let stats = SubscriptionStats { waiting, waiting_is_exact, oldest, cut, ..SubscriptionStats::new("s") };
            Limits::default().judge(stats).count()
        };
        assert_eq!(findings(0, true, None, 0), 0);
        assert_eq!(findings(10_000, true, Some(300 * SECOND), 0), 0);
        assert_eq!(findings(10_000, false, None, 0), 1, "there are more");
        assert_eq!(findings(9_999, false, None, 0), 0);
        assert_eq!(findings(10_001, true, None, 0), 1);
        assert_eq!(findings(0, true, Some(301 * SECOND), 0), 1);
        assert_eq!(findings(10_001, true, Some(301 * SECOND), 1), 2);
    }

    #[test]
    fn a_horizon_is_held_for_too_long_by_the_clock_or_by_transactions() {
        let now = SystemTime::UNIX_EPOCH + 10_000 * SECOND;
        let is_exceeded = |age, since: Option<Duration>| {
            let holder = HorizonHolder::new("session", "psql", age, since.map(|since| now - since));
            Limits::default().is_exceeded_by(&holder, now)
        };
        assert!(!is_exceeded(1_000_000, None));
        assert!(!is_exceeded(1_000_000, Some(3600 * SECOND)));
        assert!(is_exceeded(1_000_001, None));
        assert!(is_exceeded(0, Some(3601 * SECOND)));
        let ahead = HorizonHolder::new("session", "psql", 0, Some(now + 9999 * SECOND));
        assert!(!Limits::default().is_exceeded_by(&ahead, now), "the store's clock is ahead");
    }
}
