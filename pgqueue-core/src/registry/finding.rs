//! [`Finding`]: something about a subscription that somebody should know.

use std::{
    fmt::{self, Write as _},
    time::Duration,
};

use crate::{HorizonHolder, one_line::OneLine};

/// What a [`Registry`](crate::Registry) finds amiss with a subscription, or with its pool here.
///
/// Its `Display` output is one line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive] // more can be amiss
pub enum Finding {
    /// It is stored and has a handler here, but no pool of it runs here.
    /// [Repaired](crate::Registry::repair) by starting one, once an earlier one has finished.
    Missing {
        /// The subscription's name.
        subscription: String,
        /// Why there is none.
        why: Absence,
    },
    /// A pool of it is here, though it is not stored any more, or another is stored under its name. Repaired by stopping that
    /// pool.
    Orphaned {
        /// The subscription's name.
        subscription: String,
        /// Why the pool has failed, if it has: a worker notices that its subscription is gone.
        failure: Option<String>,
    },
    /// The pool here has another size than is stored with the subscription. Repaired by resizing it.
    Resized {
        /// The subscription's name.
        subscription: String,
        /// How many workers the pool has.
        size: usize,
        /// How many it should have.
        workers: usize,
    },
    /// It is stored, but has no handler here and no living consumer anywhere: its messages pile up. Serve it, or delete it.
    Stale {
        /// The subscription's name.
        subscription: String,
    },
    /// It is further behind than the registry's [limits](crate::Registry::with_lag_limits) allow.
    Lagging {
        /// The subscription's name.
        subscription: String,
        /// How many messages were never handed out.
        waiting: u64,
        /// Whether `waiting` is all there are; if not, there are more.
        waiting_is_exact: bool,
        /// How long ago the oldest message that is not done was published.
        oldest: Option<Duration>,
    },
    /// Its topic's [retention](crate::Laggards::Cut) deleted messages before they were handed out. Its consumers are told so
    /// until it is moved.
    Cut {
        /// The subscription's name.
        subscription: String,
        /// How many messages.
        messages: u64,
    },
    /// Somebody keeps the store from freeing space for longer than the registry's
    /// [limits](crate::Registry::with_horizon_limits) allow. Concerns all subscriptions.
    HorizonHeld(HorizonHolder),
}

/// Why no pool of a subscription runs here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive] // there may be other reasons
pub enum Absence {
    /// None was started, since the subscription was not stored when this process last looked.
    NotStarted,
    /// The last one was stopped, or its workers' runs ended by themselves.
    Stopped,
    /// The last one is stopping, or about to fail: what is in flight is being finished.
    Stopping,
    /// The last one failed. The text is its error with all causes.
    Failed(String),
}

impl Finding {
    /// Returns the name of the subscription that it is about, unless it is about all of them.
    #[must_use]
    pub fn subscription(&self) -> Option<&str> {
        match self {
            Self::Missing { subscription, .. }
            | Self::Orphaned { subscription, .. }
            | Self::Resized { subscription, .. }
            | Self::Stale { subscription }
            | Self::Lagging { subscription, .. }
            | Self::Cut { subscription, .. } => Some(subscription),
            Self::HorizonHeld(_) => None,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = OneLine(f);
        if let Some(subscription) = self.subscription() {
            write!(line, "subscription {subscription:?} ")?;
        }
        match self {
            Self::Missing { why, .. } => write!(line, "has no pool running here: {why}"),
            Self::Orphaned { failure: None, .. } => {
                line.write_str("is not stored any more, but a pool of it runs here")
            }
            Self::Orphaned { failure: Some(failure), .. } => {
                write!(line, "is not stored any more, and its pool here has failed: {failure}")
            }
            Self::Resized { size, workers, .. } => {
                write!(line, "is stored with {workers} workers, but its pool here has {size}")
            }
            Self::Stale { .. } => line.write_str("has no handler here and no living consumer anywhere"),
            Self::Lagging { waiting, waiting_is_exact, oldest, .. } => {
                let more = if *waiting_is_exact { "" } else { "more than " };
                write!(line, "lags: {more}{waiting} messages wait")?;
                match oldest {
                    Some(oldest) => write!(line, ", the oldest that is not done is {} s old", oldest.as_secs()),
                    None => Ok(()),
                }
            }
            Self::Cut { messages, .. } => {
                write!(
                    line,
                    "has lost {messages} messages to its topic's retention; its consumers fail until it is moved"
                )
            }
            Self::HorizonHeld(HorizonHolder { what, who, age, .. }) => {
                write!(line, "{what} {who} keeps the store from freeing space since {age} transactions")
            }
        }
    }
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = OneLine(f);
        match self {
            Self::NotStarted => line.write_str("none was started"),
            Self::Stopped => line.write_str("it has stopped"),
            Self::Stopping => line.write_str("it is stopping"),
            Self::Failed(error) => write!(line, "it has failed: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_one_line_each_whatever_others_say() {
        let subscription = || "s\n".to_owned();
        let missing = |why| Finding::Missing { subscription: subscription(), why };
        let orphaned = |failure| Finding::Orphaned { subscription: subscription(), failure };
        let lagging = |waiting_is_exact, oldest| Finding::Lagging {
            subscription: subscription(),
            waiting: 7,
            waiting_is_exact,
            oldest,
        };
        for (finding, says) in [
            (missing(Absence::NotStarted), r#"subscription "s\n" has no pool running here: none was started"#),
            (missing(Absence::Stopped), r#"subscription "s\n" has no pool running here: it has stopped"#),
            (missing(Absence::Stopping), r#"subscription "s\n" has no pool running here: it is stopping"#),
            (
                missing(Absence::Failed("two\nlines".into())),
                r#"subscription "s\n" has no pool running here: it has failed: two\nlines"#,
            ),
            (orphaned(None), r#"subscription "s\n" is not stored any more, but a pool of it runs here"#),
            (
                orphaned(Some("two\nlines".into())),
                r#"subscription "s\n" is not stored any more, and its pool here has failed: two\nlines"#,
            ),
            (
                Finding::Resized { subscription: subscription(), size: 1, workers: 4 },
                r#"subscription "s\n" is stored with 4 workers, but its pool here has 1"#,
            ),
            (
                Finding::Stale { subscription: subscription() },
                r#"subscription "s\n" has no handler here and no living consumer anywhere"#,
            ),
            (lagging(true, None), r#"subscription "s\n" lags: 7 messages wait"#),
            (
                lagging(false, Some(Duration::from_millis(90_400))),
                r#"subscription "s\n" lags: more than 7 messages wait, the oldest that is not done is 90 s old"#,
            ),
            (
                Finding::Cut { subscription: subscription(), messages: 9 },
                r#"subscription "s\n" has lost 9 messages to its topic's retention; its consumers fail until it is moved"#,
            ),
            (
                Finding::HorizonHeld(HorizonHolder::new("session", "psql\n(pid 7)", 12, None)),
                r"session psql\n(pid 7) keeps the store from freeing space since 12 transactions",
            ),
        ] {
            assert_eq!(finding.to_string(), says);
        }
    }
}
