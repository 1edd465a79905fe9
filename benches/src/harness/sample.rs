//! [`Sample`]: what one measurement came to.

use std::{fmt, time::Duration};

#[derive(Clone, Debug)]
pub(crate) enum Sample {
    /// Messages for each second; more is better.
    Rate(f64),
    /// Times in milliseconds, ascending; less is better.
    Times(Vec<f64>),
}

impl Sample {
    pub(crate) fn rate(messages: usize, elapsed: Duration) -> Self {
        Self::Rate(messages as f64 / elapsed.as_secs_f64())
    }

    pub(crate) fn times(times: impl IntoIterator<Item = Duration>) -> Self {
        let mut times: Vec<f64> = times.into_iter().map(|time| time.as_secs_f64() * 1000.0).collect();
        times.sort_by(f64::total_cmp);
        Self::Times(times)
    }

    /// The rate, or half of the times are at most so long.
    pub(crate) fn middle(&self) -> f64 {
        match self {
            Self::Rate(rate) => *rate,
            Self::Times(_) => self.quantile(0.5),
        }
    }

    /// So large a share of the times are at most so long.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        match self {
            Self::Rate(_) => f64::NAN,
            Self::Times(times) => {
                let rank = (times.len() as f64 * share).ceil() as usize;
                times.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
            }
        }
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate(rate) => write!(f, "{rate:.0} a second"),
            Self::Times(times) if times.len() == 1 => write!(f, "{:.2} ms", self.middle()),
            Self::Times(_) => write!(f, "p50 {:.2} ms, p99 {:.2} ms", self.middle(), self.quantile(0.99)),
        }
    }
}
