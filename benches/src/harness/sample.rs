//! [`Sample`]: what one measurement came to.

use std::{fmt, time::Duration};

use super::{cpu::Cpu, meter::Spent};

/// What one measurement came to: a rate or times, and what that cost.
#[derive(Clone, Debug)]
pub struct Sample {
    figures: Figures,
    costs: Option<Costs>,
}

#[derive(Clone, Debug)]
enum Figures {
    /// Messages for each second; more is better.
    Rate(f64),
    /// Times in milliseconds, ascending; less is better.
    Times(Vec<f64>),
}

/// What the messages took.
#[derive(Clone, Debug)]
pub(super) struct Costs {
    messages: f64,
    wal_bytes: f64,
    commits_before: u64,
    /// Known once everybody has left the database.
    commits: f64,
    cpu: Option<Cpu>,
    peak: Option<f64>,
}

impl Sample {
    pub(crate) fn rate(messages: usize, elapsed: Duration) -> Self {
        Self { figures: Figures::Rate(messages as f64 / elapsed.as_secs_f64()), costs: None }
    }

    /// Times of single messages.
    #[must_use]
    pub fn times(times: impl IntoIterator<Item = Duration>) -> Self {
        let mut times: Vec<f64> = times.into_iter().map(|time| time.as_secs_f64() * 1000.0).collect();
        times.sort_by(f64::total_cmp);
        Self { figures: Figures::Times(times), costs: None }
    }

    /// The rate of messages for which all of this was spent.
    #[must_use]
    pub fn metered(messages: usize, spent: Spent) -> Self {
        Self::rate(messages, spent.elapsed).costing(messages, spent)
    }

    /// Says what so many messages cost, if they are not those that were timed.
    #[must_use]
    pub fn costing(mut self, messages: usize, spent: Spent) -> Self {
        let Spent { wal_bytes, commits_before, cpu, peak, .. } = spent;
        let (messages, wal_bytes) = (messages as f64, wal_bytes as f64);
        self.costs = Some(Costs { messages, wal_bytes, commits_before, commits: f64::NAN, cpu, peak });
        self
    }

    /// Takes in how many commits the database has seen in all.
    pub(super) fn count_commits(&mut self, in_all: u64) {
        if let Some(costs) = &mut self.costs {
            costs.commits = in_all.saturating_sub(costs.commits_before) as f64;
        }
    }

    pub(super) fn costs(&self) -> Option<&Costs> {
        self.costs.as_ref()
    }

    pub(super) fn is_rate(&self) -> bool {
        matches!(self.figures, Figures::Rate(_))
    }

    /// The rate, or half of the times are at most so long.
    pub(super) fn middle(&self) -> f64 {
        match self.figures {
            Figures::Rate(rate) => rate,
            Figures::Times(_) => self.quantile(0.5),
        }
    }

    /// So large a share of the times are at most so long.
    pub(super) fn quantile(&self, share: f64) -> f64 {
        match &self.figures {
            Figures::Rate(_) => f64::NAN,
            Figures::Times(times) => {
                let rank = (times.len() as f64 * share).ceil() as usize;
                times.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
            }
        }
    }
}

impl Costs {
    pub(super) fn wal_bytes_per_message(&self) -> f64 {
        self.wal_bytes / self.messages
    }

    pub(super) fn commits_per_message(&self) -> f64 {
        self.commits / self.messages
    }

    /// The seconds of this process and of the server, in all.
    pub(super) fn cpu(&self) -> Option<Cpu> {
        self.cpu
    }

    /// The memory of this process, in MiB.
    pub(super) fn peak(&self) -> Option<f64> {
        self.peak
    }

    /// How many messages that was for.
    pub(super) fn messages(&self) -> f64 {
        self.messages
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.figures {
            Figures::Rate(rate) => write!(f, "{rate:.0} a second"),
            Figures::Times(times) if times.len() == 1 => write!(f, "{:.2} ms", self.middle()),
            Figures::Times(_) => write!(f, "p50 {:.2} ms, p99 {:.2} ms", self.middle(), self.quantile(0.99)),
        }
    }
}
