//! [`PendingQuery`]: what a consumer of a user's table needs to know of it.

mod check;
mod clauses;
mod columns;
mod command;
mod driver;
mod held;
mod keys;
mod locks;
mod look;
mod statements;
mod tracking;

use std::{fmt, sync::Arc, time::Duration};

use pgqueue_core::{Backoff, BoxError, Error, ErrorKind, Message, Result};

use self::clauses::Clauses;
pub use self::{columns::Columns, command::Command, driver::QueryDriver, held::HeldDelivery, tracking::Tracking};
use super::waking::Rings;
use crate::{Parameter, Row, TableWatch, ident::ensure_name};

/// In which order rows are handed out, and how many consumers work at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive] // there are other ways to lock
pub enum Locking {
    /// As the base query orders them, one delivery at a time, whatever the number of consumers: who looks first has it, and the
    /// others wait for it. One of them takes over at once when that transaction ends.
    ///
    /// Consumers that say the same name, base query and arguments know each other, by an advisory lock that each delivery's
    /// transaction has. Any others are held off only by the rows that they both select.
    Ordered,
    /// To any number of consumers at once: each takes the first rows that nobody holds.
    Unordered,
}

/// How a row becomes a message.
pub(crate) enum Mapping<R> {
    Columns(Columns),
    Closure(Arc<ReadRow<R>>),
}

type ReadRow<R> = dyn Fn(&R) -> Result<Message, BoxError> + Send + Sync;

/// A query that selects pending rows of a table of yours, and what becomes of them.
///
/// Each delivery is a transaction that locks its rows from the moment they are handed out until they are answered. OK runs a
/// statement of yours in it, which deletes or marks the rows, and commits; Requeue runs another, if there is one, and commits;
/// dropping the delivery, or the death of its process, rolls back. The handler can [work in the transaction
/// too](HeldDelivery): its writes commit with its OK, or not at all.
///
/// That is for short handlers: as long as one runs, its transaction holds a connection, and keeps vacuum from cleaning up. It is
/// idle meanwhile: `idle_in_transaction_session_timeout` must be longer, and how soon the server gives up a consumer whose network
/// is gone is a matter of that setting and of `tcp_keepalives_idle`.
///
/// ```
/// use pgqueue_postgres::{Columns, Locking, Row};
/// # fn example<R: Row>() -> pgqueue_postgres::PendingQuery<R> {
/// use pgqueue_postgres::PendingQuery;
///
/// PendingQuery::new("outbox", "select id, body from outbox where topic = $1 order by id")
///     .with_argument("orders")
///     .with_columns(Columns::new().with_payload("body"))
///     .with_locking(Locking::Ordered)
///     .with_ok("delete from outbox where id = any($1)")
/// # }
/// ```
///
/// # What the base query must be
/// One `SELECT` whose rows can be locked: no aggregates, no `DISTINCT` or `UNION`, no outer join whose other side may be missing,
/// and no `LIMIT` or `FOR UPDATE`, which are appended. It selects a column that identifies the row, by which your statements
/// find it again, a text, a number or a UUID. Its own conditions say what is pending: what an OK leaves must not fulfil them, and what
/// [counting](Tracking) changes must not change that.
///
/// The server locks rows of tables and of their views, and passes over what comes from `WITH` and functions, so let all that the
/// query finds pending be from tables.
///
/// Where rows are handed out in order and a requeued one is due later, those behind it are pending meanwhile, unless the base query
/// says that they wait:
///
/// ```sql
/// select id, body from outbox o where due_at <= now() and not exists (
///   select from outbox before where before.id < o.id and before.due_at > now()
/// ) order by id
/// ```
///
/// The rows of all its tables are locked. A row that becomes pending later than another but comes before it in the order, as
/// when its transaction took long, is handed out later.
#[must_use = "it does nothing before it is a driver"]
pub struct PendingQuery<R> {
    pub(crate) name: String,
    pub(crate) base: Command,
    pub(crate) key: String,
    pub(crate) mapping: Mapping<R>,
    pub(crate) locking: Locking,
    pub(crate) batch: usize,
    pub(crate) insert: Option<Command>,
    pub(crate) exists: Option<String>,
    pub(crate) ok: Command,
    pub(crate) requeue: Option<Command>,
    pub(crate) reject: Option<Command>,
    pub(crate) next_due: Option<String>,
    pub(crate) tracking: Option<Tracking>,
    pub(crate) backoff: Option<Backoff>,
    pub(crate) rings: Rings,
    pub(crate) max_attempts: Option<u32>,
    pub(crate) poll_interval: Duration,
    pub(crate) max_deliveries: Option<usize>,
}

impl<R: Row> PendingQuery<R> {
    /// Names a query, for errors and as the [topic](Message::topic) of its messages.
    ///
    /// Say also what an [OK](Self::with_ok) does.
    pub fn new(name: impl Into<String>, base: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            base: Command::new(base),
            key: "id".into(),
            mapping: Mapping::Columns(Columns::default()),
            locking: Locking::Unordered,
            batch: 1,
            insert: None,
            exists: None,
            ok: Command::new(""),
            requeue: None,
            reject: None,
            next_due: None,
            tracking: None,
            backoff: None,
            rings: Rings::Nothing,
            max_attempts: None,
            poll_interval: Duration::from_secs(60),
            max_deliveries: None,
        }
    }

    /// Binds a value to the base query's next parameter.
    pub fn with_argument(mut self, argument: impl Into<Parameter>) -> Self {
        self.base = self.base.with_argument(argument);
        self
    }

    /// Sets the column of the base query that identifies a row, each value one row of the table. Its values are what your
    /// statements get as `$1`, as an array of its type, and what messages have as their ids. Default: `id`.
    pub fn with_key(mut self, column: impl Into<String>) -> Self {
        self.key = column.into();
        self
    }

    /// Makes messages of rows by the names of their columns. Default: of the column `payload`.
    pub fn with_columns(mut self, columns: Columns) -> Self {
        self.mapping = Mapping::Columns(columns);
        self
    }

    /// Makes messages of rows by a function, which must not show values in its errors. A row that it refuses ends the stream.
    pub fn with_rows(mut self, read: impl Fn(&R) -> Result<Message, BoxError> + Send + Sync + 'static) -> Self {
        self.mapping = Mapping::Closure(Arc::new(read));
        self
    }

    /// Sets in which order rows are handed out. Default: [`Locking::Unordered`].
    pub fn with_locking(mut self, locking: Locking) -> Self {
        self.locking = locking;
        self
    }

    /// Sets how many rows a delivery has at most. Default: 1. It never waits for more than there are.
    pub fn with_batch(mut self, rows: usize) -> Self {
        self.batch = rows;
        self
    }

    /// Sets a statement that inserts the subscription, where there is something to insert. Default: none. That it exists
    /// already (SQLSTATE 23505) is no error.
    ///
    /// Should it return a boolean that is false, what exists is another: it is rolled back, and subscribing is a
    /// [`Conflict`](ErrorKind::Conflict). What it refers to and is not there is [`NotFound`](ErrorKind::NotFound), and what a
    /// column does not allow is [`Invalid`](ErrorKind::Invalid).
    ///
    /// ```sql
    /// insert into subscriptions (name, topic) values ($1, $2)
    /// on conflict (name) do update set name = excluded.name
    /// returning subscriptions.topic = $2
    /// ```
    pub fn with_insert(mut self, insert: impl Into<Command>) -> Self {
        self.insert = Some(insert.into());
        self
    }

    /// Sets a scalar query of a boolean: whether the subscription exists. It may use the base query's parameters. Default: none,
    /// and it is not asked. Where it does not, listening, looking in vain and answers that touch no row are
    /// [`NotFound`](ErrorKind::NotFound), so that a subscription that is deleted ends its streams.
    pub fn with_exists(mut self, exists: impl Into<String>) -> Self {
        self.exists = Some(exists.into());
        self
    }

    /// Sets the statement of an OK, which must be said: `$1` is the array of keys. Should it touch no row, somebody else had
    /// them; it is rolled back, and the answer is [`LeaseLost`](ErrorKind::LeaseLost). Should it touch more rows than were
    /// delivered, it is rolled back too, and is [`Invalid`](ErrorKind::Invalid). It may select a function, but not call a
    /// procedure, which touches no row that the server tells of.
    pub fn with_ok(mut self, ok: impl Into<Command>) -> Self {
        self.ok = ok.into();
        self
    }

    /// Sets the statement of a Requeue: `$1` is the array of keys, `$2` in how many milliseconds it is due, a `bigint`, NULL if
    /// nothing says, and `$3` the reason, a `text`, or NULL. Default: none, and the rows are pending at once; a Requeue with a delay is
    /// rolled back then, and is [`Invalid`](ErrorKind::Invalid).
    ///
    /// Count the milliseconds from `statement_timestamp()`: `now()` is when the delivery began.
    pub fn with_requeue(mut self, requeue: impl Into<Command>) -> Self {
        self.requeue = Some(requeue.into());
        self
    }

    /// Sets the statement of a Reject: `$1` is the array of keys, `$2` the reason, a `text`, or NULL. Default: none; a Reject
    /// is rolled back then, and is [`Invalid`](ErrorKind::Invalid).
    pub fn with_reject(mut self, reject: impl Into<Command>) -> Self {
        self.reject = Some(reject.into());
        self
    }

    /// Sets when requeued rows are due where the answer does not say, which takes a [statement](Self::with_requeue), and [after how
    /// many attempts](Self::with_max_attempts) they are rejected; of a batch, those whose last attempt it was.
    /// Default: none.
    pub fn with_backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = Some(backoff);
        self
    }

    /// Sets after how many attempts rows are rejected, which takes a [statement](Self::with_reject) and attempts that are
    /// [counted](Self::with_tracking) or [read](Columns::with_attempt). Default: as the
    /// [backoff](Self::with_backoff) says, if there is one.
    ///
    /// A Requeue of the last attempt is a Reject. Where deliveries are [counted](Self::with_tracking), rows that were handed out
    /// so often and never answered, as they kill who handles them, are rejected instead of being handed out once more.
    pub fn with_max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts);
        self
    }

    /// Sets a scalar query of a `timestamptz`: when the first row becomes pending by time alone; NULL or infinity if none does.
    /// It may use the base query's parameters. Default: none, and such rows are found by the poll.
    pub fn with_next_due(mut self, next_due: impl Into<String>) -> Self {
        self.next_due = Some(next_due.into());
        self
    }

    /// Counts and dates deliveries in columns of the table. Default: none.
    pub fn with_tracking(mut self, tracking: Tracking) -> Self {
        self.tracking = Some(tracking);
        self
    }

    /// Listens on a channel for notifications that rows became pending. Default: none, and the table is polled.
    pub fn with_channel(mut self, channel: impl Into<String>) -> Self {
        self.rings = Rings::Channel(channel.into());
        self
    }

    /// Lets triggers notify, and listens to them. They are installed when consuming begins, and looked after once a lost
    /// connection is back and with each poll. Default: none, and the table is polled.
    pub fn with_watch(mut self, watch: TableWatch) -> Self {
        self.rings = Rings::Triggers(watch);
        self
    }

    /// Sets how often an idle consumer looks though nothing woke it; up to a thirtieth is added at random. Default: 60 s, and
    /// so up to 62 s. While others hold pending rows, it looks every second.
    pub fn with_poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Sets how many deliveries one consumer may have out at a time, each of which holds a connection. Default: one less than
    /// the client has connections; with [`Locking::Ordered`] always one.
    pub fn with_max_deliveries(mut self, deliveries: usize) -> Self {
        self.max_deliveries = Some(deliveries);
        self
    }

    /// After how many attempts rows are rejected, and how.
    pub(crate) fn last_attempt(&self) -> Option<(u32, &Command)> {
        let attempts = self.max_attempts.or_else(|| self.backoff.map(|backoff| backoff.max_attempts()));
        Some((attempts?, self.reject.as_ref()?))
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let invalid = |what: &str| Err(Error::new(ErrorKind::Invalid, format!("the query {:?} {what}", self.name)));
        ensure_name("key column", &self.key)?;
        self.tracking.as_ref().map_or(Ok(()), Tracking::validate)?;
        self.backoff.as_ref().map_or(Ok(()), Backoff::validate).or_else(|error| invalid(&error.to_string()))?;
        Clauses::of(self.base.sql()).ensure_lockable(&self.name, self.locking == Locking::Ordered)?;
        if self.ok.sql().trim().is_empty() {
            return invalid("does not say what an OK does: give it a statement, with `with_ok`");
        } else if self.batch == 0 {
            return invalid("has a batch of 0 rows; it must be 1 or more");
        } else if self.backoff.is_some() && self.requeue.is_none() {
            return invalid(
                "has a backoff, and no statement that could keep a row from being pending: give it one, with `with_requeue`",
            );
        } else if self.max_attempts == Some(0) {
            return invalid("allows 0 attempts; it must allow 1 or more");
        } else if self.max_deliveries == Some(0) {
            return invalid("allows 0 deliveries; it must allow 1 or more");
        } else if self.poll_interval.is_zero() {
            return invalid("has a poll interval of zero; it must be longer");
        }
        Ok(())
    }
}

impl<R> fmt::Debug for PendingQuery<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingQuery")
            .field("name", &self.name)
            .field("base", &self.base)
            .field("locking", &self.locking)
            .field("batch", &self.batch)
            .finish_non_exhaustive()
    }
}
