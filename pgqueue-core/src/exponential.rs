//! Delays that grow from step to step: what [`Backoff`](crate::Backoff) and [`RetryPolicy`](crate::RetryPolicy) share.

use std::time::Duration;

use crate::{Error, ErrorKind, Result};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Exponential {
    pub(crate) base: Duration,
    pub(crate) multiplier: f64,
    pub(crate) cap: Duration,
    /// The fraction by which a delay may be longer or shorter, at random.
    pub(crate) jitter: f64,
}

impl Exponential {
    /// The delay of a step, counted from 0: `min(base × multiplier^step, cap)`, then ± `jitter` of that.
    pub(crate) fn delay(&self, step: u32) -> Duration {
        if self.base.is_zero() {
            return Duration::ZERO;
        }
        let growth = self.multiplier.powi(i32::try_from(step).unwrap_or(i32::MAX));
        let seconds = (self.base.as_secs_f64() * growth).min(self.cap.as_secs_f64());
        let jittered = seconds * (1.0 + self.jitter * (2.0 * fastrand::f64() - 1.0));
        Duration::try_from_secs_f64(jittered).unwrap_or(self.cap)
    }

    pub(crate) fn validate(&self, what: &str) -> Result<()> {
        if !(self.multiplier >= 1.0 && self.multiplier.is_finite()) {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("{what} has a multiplier of {}; it must be 1 or more", self.multiplier),
            ));
        }
        if !(0.0..=1.0).contains(&self.jitter) {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("{what} has a jitter of {}; it must lie between 0 and 1", self.jitter),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn delays_stay_within_cap_and_jitter(base_ms in 0u64..10_000_000, multiplier in 1.0f64..1e9, cap_ms in 0u64..1_000_000_000, jitter in 0.0f64..=1.0, step: u32) {
            let (base, cap) = (Duration::from_millis(base_ms), Duration::from_millis(cap_ms));
            let delay = Exponential { base, multiplier, cap, jitter }.delay(step);
            let highest = cap.as_secs_f64() * (1.0 + jitter);
            prop_assert!(delay.as_secs_f64() <= highest + 1e-6, "{delay:?} over {highest}");
            if jitter == 0.0 && step == 0 {
                prop_assert_eq!(delay.as_millis(), base.min(cap).as_millis());
            }
        }
    }

    #[test]
    fn extreme_steps_do_not_overflow() {
        let hour = Duration::from_secs(3600);
        let growing = Exponential { base: Duration::from_secs(1), multiplier: 2.0, cap: hour, jitter: 0.0 };
        assert_eq!(
            [growing.delay(0), growing.delay(3), growing.delay(u32::MAX)],
            [Duration::from_secs(1), Duration::from_secs(8), hour]
        );
        assert_eq!(Exponential { base: Duration::ZERO, ..growing }.delay(u32::MAX), Duration::ZERO);
    }
}
