//! The queue's clock: tokio's, so that tests can pause it, with a calendar.

use std::time::{Duration, SystemTime};

use pgqueue_core::Due;
use tokio::time::Instant;

/// Turns tokio's instants into times of day.
#[derive(Debug)]
pub(crate) struct Clock {
    started: Now,
}

/// One moment, read once, so that everything done in one step agrees on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) instant: Instant,
    pub(crate) time: SystemTime,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { started: Now { instant: Instant::now(), time: SystemTime::now() } }
    }

    pub(crate) fn now(&self) -> Now {
        let instant = Instant::now();
        Now { instant, time: self.started.time + (instant - self.started.instant) }
    }
}

impl Now {
    /// The instant `delay` from now; one too far away to express comes in a century.
    pub(crate) fn after(&self, delay: Duration) -> Instant {
        const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
        self.instant + delay.min(CENTURY)
    }

    /// The instant a scheduled message is due.
    pub(crate) fn when(&self, due: Due) -> Instant {
        match due {
            Due::At(time) => self.after(time.duration_since(self.time).unwrap_or_default()),
            Due::After(delay) => self.after(delay),
            _ => self.instant,
        }
    }
}
