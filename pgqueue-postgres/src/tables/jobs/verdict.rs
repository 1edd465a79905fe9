//! [`Verdict`]: what becomes of a job.

use std::time::Duration;

use pgqueue_core::{Ack, Backoff, Error, ErrorKind, Requeue, RequeueCause, Result};

use crate::value::storable;

/// What becomes of a job that was claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Succeeded,
    Retry {
        delay: Duration,
        reason: Option<String>,
    },
    Failed {
        reason: String,
    },
    TimedOut {
        reason: String,
    },
    /// It was never handed out, and waits as if it had not been claimed.
    GivenBack,
}

impl Verdict {
    /// What an answer to the attempt of this number means.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for an answer of a kind that is not known here.
    pub(super) fn of(ack: Ack, attempt: i64, backoff: &Backoff) -> Result<Self> {
        match ack {
            Ack::Ok => Ok(Self::Succeeded),
            Ack::Requeue(requeue) => Ok(Self::requeued(requeue, attempt, backoff)),
            Ack::Reject { reason } => Ok(Self::Failed { reason: storable(reason) }),
            _ => Err(Error::new(ErrorKind::Invalid, "an answer that this driver does not know")),
        }
    }

    /// What dropping a delivery means.
    pub(super) fn of_drop(attempt: i64, backoff: &Backoff) -> Self {
        let requeue = Requeue::default().with_delay(Duration::ZERO).with_reason("dropped unsettled");
        Self::requeued(requeue, attempt, backoff)
    }

    fn requeued(Requeue { delay, reason, cause, .. }: Requeue, attempt: i64, backoff: &Backoff) -> Self {
        let reason = reason.map(storable);
        if attempt < i64::from(backoff.max_attempts()) {
            let attempt = u32::try_from(attempt).unwrap_or(1);
            return Self::Retry { delay: delay.unwrap_or_else(|| backoff.delay(attempt)), reason };
        }
        let reason = reason.unwrap_or_else(|| "requeued".to_owned());
        match cause {
            RequeueCause::Timeout => Self::TimedOut { reason },
            _ => Self::Failed { reason },
        }
    }

    /// What the statement calls it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Retry { .. } => "retry",
            Self::Failed { .. } => "failed",
            Self::TimedOut { .. } => "timed_out",
            Self::GivenBack => "given back",
        }
    }

    /// After how long the job is due again; `None` to leave that as it is.
    pub(super) fn delay(&self) -> Option<Duration> {
        if let Self::Retry { delay, .. } = self { Some(*delay) } else { None }
    }

    pub(super) fn reason(&self) -> Option<&str> {
        match self {
            Self::Retry { reason, .. } => reason.as_deref(),
            Self::Failed { reason } | Self::TimedOut { reason } => Some(reason),
            Self::Succeeded | Self::GivenBack => None,
        }
    }

    /// Whether the job comes again.
    pub(super) fn comes_again(&self) -> bool {
        matches!(self, Self::Retry { .. } | Self::GivenBack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff() -> Backoff {
        Backoff::default().with_jitter(0.0).with_max_attempts(3)
    }

    fn of(requeue: Requeue, attempt: i64) -> Verdict {
        Verdict::of(Ack::Requeue(requeue), attempt, &backoff()).unwrap()
    }

    #[test]
    fn the_last_attempt_fails_or_times_out() {
        let late = || Requeue::default().with_reason("late").with_cause(RequeueCause::Timeout);
        let after = |seconds| Duration::from_secs(seconds);
        assert_eq!(of(Requeue::default(), 2), Verdict::Retry { delay: after(2), reason: None });
        assert_eq!(of(late().with_delay(after(7)), 1), Verdict::Retry { delay: after(7), reason: Some("late".into()) });
        assert_eq!(of(late().with_delay(after(7)), 3), Verdict::TimedOut { reason: "late".into() });
        assert_eq!(of(Requeue::default(), 3), Verdict::Failed { reason: "requeued".into() });
        assert_eq!(of(Requeue::default(), 4), Verdict::Failed { reason: "requeued".into() });
    }

    #[test]
    fn reasons_hold_nothing_that_the_server_refuses() {
        let verdict = Verdict::of(Ack::reject("a\0b"), 1, &backoff()).unwrap();
        assert_eq!(verdict.reason(), Some("a\u{fffd}b"));
    }
}
