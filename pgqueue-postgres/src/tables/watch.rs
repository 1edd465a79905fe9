//! [`TableWatch`]: triggers on a user's table that notify whoever waits for its rows.

mod health;
mod install;
mod outcome;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use pgqueue_core::{Error, ErrorKind, Result, key_hash};

pub use self::{
    health::{TriggerHealth, TriggerState},
    outcome::{Watched, WhyPolling},
};
use crate::ident::{TableName, ensure_name, fitting};

/// The function that the triggers call. A release with another body needs another name, as the old one stays in use.
const FUNCTION: &str = "pgqueue_notify";
const BODY: &str = include_str!("../../sql/watch/notify.sql");

const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
const MIN_LOCK_TIMEOUT: Duration = Duration::from_millis(1); // PostgreSQL takes 0 for "no limit"
const MAX_LOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// How a table of yours wakes those who wait for its rows: by two triggers that notify a channel.
///
/// ```
/// use pgqueue_postgres::{TableName, TableWatch};
///
/// let watch = TableWatch::new(TableName::new("jobs").in_schema("app"))
///     .with_condition("new.status in ('pending', 'retry')");
/// assert_eq!(watch.channel(), "pgqueue_jobs");
/// assert_eq!(watch.trigger_names(), ["pgqueue_insert_pgqueue_jobs", "pgqueue_update_pgqueue_jobs"]);
/// ```
///
/// # What is installed
/// [`watch_table`](crate::PgTables::watch_table) creates, with or without the queue's schema:
///
/// - in the table's schema the function `pgqueue_notify()`, which all watched tables of that schema share. It calls
///   `pg_catalog.pg_notify` and nothing else, whatever the `search_path` of whoever writes;
/// - on the table the triggers `pgqueue_insert_` and `pgqueue_update_` followed by the channel's name, `AFTER INSERT` and
///   `AFTER UPDATE`, `FOR EACH ROW`, `WHEN` the condition holds. Their arguments are the channel and a mark by which the
///   condition is recognised. On a partitioned table they are in all partitions.
///
/// Names of more than 63 bytes, which is all that PostgreSQL keeps, are cut and end in a hash of the whole.
///
/// The payload is empty, so that a transaction notifies once however many rows it writes. A transaction that is rolled back
/// notifies nobody. Transactions that notify commit one at a time on the whole server, which costs throughput where thousands
/// commit a second.
///
/// # What it needs
/// The privileges `TRIGGER` and one of `UPDATE`, `DELETE` and `TRUNCATE` on the table, and `CREATE` on its schema until the
/// function is there; to enable a trigger that somebody disabled, the table's ownership. A role without them may let the
/// owner install the same.
///
/// # Several watches
/// Watches of one table with different channels have triggers of their own. With the same channel and another condition, the
/// triggers are [foreign](TriggerState::Foreign) to the second watch: drop them by [their names](Self::trigger_names)
/// when you change a condition, and they are created anew. Tables of the same name in two schemas share a channel unless you
/// name others, which wakes both for either.
///
/// # Busy tables
/// While any transaction that wrote to the table is open, or vacuum is at it, nothing can be installed. Where that is always so,
/// let a migration of your own create what `psql` shows of the same watch on an empty table; it is recognised.
///
/// Cloning makes another handle to the same watch: what one has said in the log, the other does not repeat.
#[derive(Clone, Debug)]
pub struct TableWatch {
    table: TableName,
    channel: String,
    condition: Option<String>,
    repair: bool,
    lock_timeout: Duration,
    /// Why it was said to poll, last; `None` if all is well.
    said: Arc<Mutex<Option<WhyPolling>>>,
}

impl TableWatch {
    /// Watches a table for every row that is inserted or updated.
    pub fn new(table: impl Into<TableName>) -> Self {
        let table = table.into();
        let channel = fitting("pgqueue_", table.name());
        Self { table, channel, condition: None, repair: true, lock_timeout: LOCK_TIMEOUT, said: Arc::default() }
    }

    /// Names the channel, taken literally, of 1 to 63 bytes. Default: `pgqueue_` and the table's name without its schema.
    #[must_use]
    pub fn with_channel(mut self, channel: impl Into<String>) -> Self {
        self.channel = channel.into();
        self
    }

    /// Notifies only of rows for which this holds: SQL over `new`, the row as it is now, such as
    /// `new.status in ('pending', 'retry')`. It has no subqueries, and cannot use `old`. Default: every row.
    ///
    /// It becomes part of the trigger's `WHEN` as it is. Like the text of a query it is yours: never put together from
    /// what comes from outside. Its names are looked up when the triggers are created, by the `search_path` of that moment.
    #[must_use]
    pub fn with_condition(mut self, condition: impl Into<String>) -> Self {
        self.condition = Some(condition.into());
        self
    }

    /// Whether triggers that are missing or disabled later on are repaired: with each poll, and once a lost connection is back.
    /// Default: `true`.
    #[must_use]
    pub fn with_repair(mut self, repair: bool) -> Self {
        self.repair = repair;
        self
    }

    /// Sets how long installing may wait for locks, and how long it may take in all, and with that how long others may have
    /// to wait for it: 1 ms to 60 s, anything else is cut to that. Default: 5 s. For the table itself it never waits.
    #[must_use]
    pub fn with_lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout.clamp(MIN_LOCK_TIMEOUT, MAX_LOCK_TIMEOUT);
        self
    }

    /// Returns the table's name.
    #[must_use]
    pub fn table(&self) -> &TableName {
        &self.table
    }

    /// Returns the channel's name.
    #[must_use]
    pub fn channel(&self) -> &str {
        &self.channel
    }

    /// Returns the names of the triggers, the one after `INSERT` first.
    #[must_use]
    pub fn trigger_names(&self) -> [String; 2] {
        ["pgqueue_insert_", "pgqueue_update_"].map(|prefix| fitting(prefix, &self.channel))
    }

    /// By which the condition is recognised: PostgreSQL keeps it parsed, and prints it otherwise than it was written.
    fn mark(&self) -> Option<String> {
        self.condition.as_deref().map(|condition| format!("{:08x}", key_hash(condition)))
    }

    fn validate(&self) -> Result<()> {
        self.table.validate()?;
        ensure_name("channel", &self.channel)?;
        if self.condition.as_deref().is_some_and(|condition| condition.contains('\0')) {
            let message = format!("the condition of the watch of table {} must not have a NUL", self.table);
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        Ok(())
    }

    /// Notes what is to be said; whether that is new.
    fn is_news(&self, why: Option<WhyPolling>) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *said, why) != why
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_whatever_the_table_is_called() {
        for table in ["a".repeat(63), "ü".repeat(31), "many \"words\", with a long name indeed, and quotes".into()] {
            let watch = TableWatch::new(table);
            watch.validate().unwrap();
            let [insert, update] = watch.trigger_names();
            assert!(insert.len() <= 63 && update.len() <= 63 && insert != update, "{insert} {update}");
        }
    }

    #[test]
    fn lock_timeouts_have_bounds() {
        let bounded = |timeout| TableWatch::new("jobs").with_lock_timeout(timeout).lock_timeout;
        assert_eq!(bounded(Duration::ZERO), MIN_LOCK_TIMEOUT);
        assert_eq!(bounded(Duration::MAX), MAX_LOCK_TIMEOUT);
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        for watch in [
            TableWatch::new(""),
            TableWatch::new("jobs").with_channel("c".repeat(64)),
            TableWatch::new("jobs").with_channel(""),
            TableWatch::new("jobs").with_condition("new.a = '\0'"),
        ] {
            assert_eq!(watch.validate().unwrap_err().kind(), ErrorKind::Invalid);
        }
    }

    #[test]
    fn a_reason_is_news_once_and_again_after_another() {
        let watch = TableWatch::new("jobs");
        let other_handle = watch.clone();
        assert!(watch.is_news(Some(WhyPolling::Locked)));
        assert!(!other_handle.is_news(Some(WhyPolling::Locked)));
        assert!(watch.is_news(None));
        assert!(watch.is_news(Some(WhyPolling::Locked)));
    }
}
