//! [`JobTable`]: what a job table looks like, and how its jobs are worked on.

use std::time::Duration;

use pgqueue_core::{Backoff, Error, ErrorKind, Result};

use super::names::{Columns, Labels};
use crate::{
    TableName, TableWatch,
    ident::{fitting, literal, quoted},
    tables::waking::Rings,
    value::CENTURY,
};

/// A table of jobs that you have already, and how its jobs are worked on.
///
/// By default it looks like this one, whose names and labels can all be set:
///
/// ```sql
/// create type job_status as enum ('not_started', 'running', 'retry', 'failed', 'timed_out', 'succeeded');
/// create table send_mail_jobs (
///   id             uuid primary key default gen_random_uuid(),
///   created_at     timestamptz not null default now(),  -- the order
///   updated_at     timestamptz not null default now(),  -- may be missing
///   status         job_status not null default 'not_started',
///   last_error     text,
///   attempts_count int not null default 0,
///   locked_at      timestamptz,
///   locked_by      uuid,
///   run_at         timestamptz not null default now(),
///   recipient      text not null                        -- and whatever else a job is about
/// );
/// create index on send_mail_jobs (created_at, run_at) where status in ('not_started', 'retry') and locked_by is null;
/// create index on send_mail_jobs (run_at) where status in ('not_started', 'retry') and locked_by is null;
/// create index on send_mail_jobs (locked_at) where status = 'running';
/// ```
///
/// - The **id** is of any type that PostgreSQL itself defines for keys (`uuid`, `bigint`, `text`, …) and has a unique index.
/// - The **status** is an enum or a text, **locked by** a `uuid` or a text, **attempts** an integer.
/// - **Times** are `timestamptz`, or `timestamp`, which is then UTC.
/// - The **indexes** are for you to create. Without the first, each look reads the table; without the second, each wait reads
///   what the first holds; without the third, what runs is looked for in the whole table every half lease.
///
/// | status | meaning | set by |
/// |---|---|---|
/// | `not_started` | is due at `run_at`, if nobody locked it | whoever inserts the job |
/// | `running` | a consumer has it until `locked_at` is a lease ago | a claim, which counts the attempt |
/// | `retry` | as `not_started`, not for the first time | a requeue, a dropped delivery, a lease that ended |
/// | `failed` | never again: rejected, or the last attempt failed | a reject, a requeue, a lease that ended |
/// | `timed_out` | never again: the last attempt met the worker's timeout | a requeue |
/// | `succeeded` | never again: done | an OK |
///
/// ```
/// use std::time::Duration;
/// use pgqueue_core::Backoff;
/// use pgqueue_postgres::JobTable;
///
/// let jobs = JobTable::new("send_mail_jobs")
///     .with_lease(Duration::from_secs(60))
///     .with_backoff(Backoff::default().with_cap(Duration::from_secs(86_400)));
/// ```
#[derive(Clone, Debug)]
#[must_use = "a job table does nothing until `PgTables::jobs` consumes it"]
pub struct JobTable {
    pub(super) table: TableName,
    pub(super) columns: Columns,
    pub(super) labels: Labels,
    pub(super) rings: Rings,
    pub(super) lease: Duration,
    pub(super) give_up_after: Duration,
    pub(super) backoff: Backoff,
    pub(super) poll_interval: Duration,
}

macro_rules! names {
    ($($(#[$doc:meta])* $setter:ident: $group:ident.$field:ident $(, $wrap:ident)?;)*) => {
        $($(#[$doc])*
        pub fn $setter(mut self, name: impl Into<String>) -> Self {
            self.$group.$field = $($wrap)?(name.into());
            self
        })*
    };
}

impl JobTable {
    /// A job table with the usual columns, and what the setters say are defaults.
    pub fn new(table: impl Into<TableName>) -> Self {
        let table = table.into();
        Self {
            rings: Rings::Channel(fitting("pgqueue_", table.name())),
            table,
            columns: Columns::default(),
            labels: Labels::default(),
            lease: Duration::from_secs(600),
            give_up_after: Duration::from_secs(24 * 60 * 60),
            backoff: Backoff::fixed(Duration::from_secs(30)),
            poll_interval: Duration::from_secs(60),
        }
    }

    names! {
        /// Sets the column that names a job; it becomes the message's id and position. Default: `id`.
        with_id_column: columns.id;
        /// Sets the column of the state. Default: `status`.
        with_status_column: columns.status;
        /// Sets the column that counts how often the job was handed out. Default: `attempts_count`.
        with_attempts_column: columns.attempts;
        /// Sets the column that says since when its consumer has been known to have it. Default: `locked_at`.
        with_locked_at_column: columns.locked_at;
        /// Sets the column that says who has it. Default: `locked_by`.
        with_locked_by_column: columns.locked_by;
        /// Sets the column that says when it is due; a job without such a time is never due. Default: `run_at`.
        with_run_at_column: columns.run_at;
        /// Sets the column that says why the last attempt failed. Default: `last_error`.
        with_last_error_column: columns.last_error;
        /// Sets the column by which jobs that are due are ordered; it becomes [`Message::published_at`](pgqueue_core::Message::published_at).
        /// Default: `created_at`.
        with_created_at_column: columns.created_at;
        /// Sets the column that says when the job last changed. Default: `updated_at`, if the table has it.
        with_updated_at_column: columns.updated_at, Some;
        /// Sets the column that becomes the payload: a text or `bytea` as it is, anything else as JSON. Default: the whole row as a
        /// JSON object.
        with_payload_column: columns.payload, Some;
        /// Sets the column that becomes the message's key. It orders nothing here. Default: none.
        with_key_column: columns.key, Some;
        /// Sets the column that becomes the message's kind, for a [`Router`](pgqueue_core::Router). Default: none.
        with_kind_column: columns.kind, Some;
        /// Sets what a new job's state is called. Default: `not_started`.
        with_not_started_label: labels.not_started;
        /// Sets what the state of a job in hand is called. Default: `running`.
        with_running_label: labels.running;
        /// Sets what the state of a job that comes again is called. Default: `retry`.
        with_retry_label: labels.retry;
        /// Sets what the state of a job that was given up is called. Default: `failed`.
        with_failed_label: labels.failed;
        /// Sets what the state of a job is called whose last attempt met the worker's timeout. Default: `timed_out`.
        with_timed_out_label: labels.timed_out;
        /// Sets what the state of a job that is done is called. Default: `succeeded`.
        with_succeeded_label: labels.succeeded;
    }

    /// Sets the channel whose notifications say that there may be a job. Default: `pgqueue_` and the table's name; of a long one its
    /// beginning and a hash.
    pub fn with_channel(mut self, channel: impl Into<String>) -> Self {
        self.rings = Rings::Channel(channel.into());
        self
    }

    /// Lets triggers on the table notify of jobs that wait, and listens to them: a [`TableWatch`] of that condition. They are
    /// installed when consuming begins, and looked after once a lost connection is back and with each poll. Default: none.
    ///
    /// Say what the table's columns and labels are called before.
    pub fn with_triggers(self) -> Self {
        let waiting = [&self.labels.not_started, &self.labels.retry].map(|label| literal(label)).join(", ");
        let condition = format!("new.{} in ({waiting})", quoted(&self.columns.status));
        let watch = TableWatch::new(self.table.clone()).with_condition(condition);
        self.with_watch(watch)
    }

    /// As [`with_triggers`](Self::with_triggers), with a watch of your own.
    pub fn with_watch(mut self, watch: TableWatch) -> Self {
        self.rings = Rings::Triggers(watch);
        self
    }

    /// Listens to nothing: a job that nobody here put back waits for the poll, unless it was waited for.
    pub fn without_channel(mut self) -> Self {
        self.rings = Rings::Nothing;
        self
    }

    /// Sets for how long a job stays with a consumer that says nothing; those that live say something three times a lease. Then it
    /// comes again. Default: 10 min.
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease.min(CENTURY);
        self
    }

    /// Sets after how long a job whose consumer said nothing is given up instead. Default: 24 h.
    pub fn with_give_up_after(mut self, age: Duration) -> Self {
        self.give_up_after = age.min(CENTURY);
        self
    }

    /// Sets when a requeued job comes again, and how often it is handed out before it has failed. Default: after 30 s each time,
    /// 10 times in all.
    pub fn with_backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Sets how often to look without any reason: for jobs of which nobody was told. Default: 60 s, and up to a thirtieth more.
    pub fn with_poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval.min(CENTURY);
        self
    }

    /// Returns the table.
    #[must_use]
    pub fn table(&self) -> &TableName {
        &self.table
    }

    /// Returns the channel that it listens to.
    #[must_use]
    pub fn channel(&self) -> Option<&str> {
        self.rings.channel()
    }

    /// Checks what can be checked without the table.
    pub(super) fn validate(&self) -> Result<()> {
        self.table.validate()?;
        self.columns.validate()?;
        self.labels.validate().map_err(|problem| self.refused(&problem))?;
        for (what, time) in
            [("lease", self.lease), ("age to give up after", self.give_up_after), ("poll interval", self.poll_interval)]
        {
            if time.is_zero() {
                return Err(self.refused(&format!("its {what} is zero; it must be longer")));
            }
        }
        self.backoff.validate().map_err(|error| self.refused(&error.to_string()))
    }

    pub(super) fn refused(&self, problem: &str) -> Error {
        Error::new(ErrorKind::Invalid, format!("the job table {} cannot be used: {problem}", self.table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(table: &JobTable) -> String {
        let error = table.validate().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        error.to_string()
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let table = JobTable::new("send_mail_jobs");
        table.validate().unwrap();
        assert_eq!(table.channel(), Some("pgqueue_send_mail_jobs"));
        assert_eq!(
            [table.lease, table.give_up_after, table.poll_interval].map(|time| time.as_secs()),
            [600, 86_400, 60]
        );
        assert_eq!((table.backoff.max_attempts(), table.backoff.delay(9)), (10, Duration::from_secs(30)));
    }

    #[test]
    fn what_cannot_work_is_refused_without_a_server() {
        let jobs = || JobTable::new("jobs");
        for (table, says) in [
            (JobTable::new(""), "table"),
            (jobs().with_run_at_column("a\0b"), "column"),
            (jobs().with_key_column(""), "column"),
            (jobs().with_retry_label("running"), "\"running\" is for jobs that wait"),
            (jobs().with_not_started_label("failed"), "\"failed\" is for jobs that wait"),
            (jobs().with_succeeded_label("running"), "\"running\" is for jobs that run"),
            (jobs().with_failed_label("a\0b"), "NUL"),
            (jobs().with_lease(Duration::ZERO), "lease is zero"),
            (jobs().with_give_up_after(Duration::ZERO), "give up after is zero"),
            (jobs().with_poll_interval(Duration::ZERO), "poll interval is zero"),
            (jobs().with_backoff(Backoff::default().with_max_attempts(0)), "0 attempts"),
        ] {
            let said = problem(&table);
            assert!(said.contains(says), "{said:?} does not say {says:?}");
        }
        jobs().with_retry_label("not_started").with_timed_out_label("failed").validate().unwrap();
    }
}
