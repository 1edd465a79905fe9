//! [`Sqlx`]: the client over a pool.

use std::fmt;

use async_trait::async_trait;
use pgqueue_postgres::{Client, ClientError, ListenerConnection, Parameter};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgPool, postgres::PgConnectOptions};

use crate::{SqlxRow, SqlxTransaction, connect, error, listener::Listener, pool::Pool, statement};

/// The queue's client over a pool of sqlx.
///
/// Each statement takes a connection from the pool and waits at most 5 s for one, or as long as the pool itself waits if
/// that is shorter. Who waits in vain is told why: when it is not known that the server answers, one connection is tried
/// outside of the pool, for at most 1 s, and only if that succeeds the pool is reported as exhausted. sqlx itself tries
/// again and again while the server refuses connections or starts up, so this error too comes after the wait.
///
/// # Cancel safety
///
/// Dropping a call closes its connection. A statement that was sent by then may or may not take effect.
///
/// # Secrets
///
/// Its debug output shows how the pool is used, not where it connects.
pub struct Sqlx {
    pool: Pool,
    /// Where the connection that listens leads; where the pool leads if nothing is said.
    listening: Option<PgConnectOptions>,
    /// Whether a pooler gives each transaction another session.
    unnamed: bool,
}

impl Sqlx {
    /// Whether to be correct behind a pooler in transaction mode that does not know prepared statements. Default: `false`.
    ///
    /// By default a statement is prepared once for each connection, and from then on takes one round trip. Behind such a
    /// pooler (PgBouncer before 1.21, or with `max_prepared_statements = 0`) the session in which it was prepared may be
    /// another client's by then. With `true`, each statement runs unnamed, between `BEGIN ISOLATION LEVEL READ COMMITTED`
    /// and `COMMIT`, which hold it to one session; this takes four round trips. Nor does a pooler in transaction mode deliver
    /// notifications, so there is no listener, and the queue polls, unless the listener
    /// [leads past it](Sqlx::with_listening).
    ///
    /// Make the pool yourself then: [`connect`](Client::connect) sets a start-up option that poolers do not know.
    #[must_use]
    pub fn with_unnamed_statements(mut self, unnamed: bool) -> Self {
        self.unnamed = unnamed;
        self
    }

    /// Opens the connection that listens with these options, which lead to the server itself where the pool leads through a
    /// pooler in transaction mode. Default: as the pool's, and none behind a pooler that knows no prepared statements.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), sqlx::Error> {
    /// use pgqueue_sqlx::{PgQueue, Sqlx};
    /// use sqlx::PgPool;
    ///
    /// let pool = PgPool::connect_lazy("postgres://shop@pgbouncer:6432/shop")?;
    /// let client = Sqlx::from(pool).with_unnamed_statements(true).with_listening("postgres://shop@db:5432/shop".parse()?);
    /// let queue = PgQueue::new(client);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn with_listening(mut self, options: PgConnectOptions) -> Self {
        self.listening = Some(options);
        self
    }

    /// Returns the pool, from which callers may begin transactions of their own.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        self.pool.inner()
    }
}

impl From<PgPool> for Sqlx {
    /// Uses a pool as it is: its size, its TLS, its isolation level, its hooks.
    ///
    /// Its `test_before_acquire`, on by default, adds a round trip to each statement.
    fn from(pool: PgPool) -> Self {
        Self { pool: Pool::new(pool), listening: None, unnamed: false }
    }
}

impl fmt::Debug for Sqlx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pool, listening, unnamed } = self;
        f.debug_struct("Sqlx")
            .field("size", &pool.inner().size())
            .field("idle", &pool.inner().num_idle())
            .field("listens_elsewhere", &listening.is_some())
            .field("unnamed_statements", unnamed)
            .finish()
    }
}

#[async_trait]
impl Client for Sqlx {
    type Row = SqlxRow;
    type Transaction = SqlxTransaction;

    /// Makes a pool of up to 16 connections to `postgres://user:password@host:port/database`, with the parameters that
    /// [`PgConnectOptions`](sqlx::postgres::PgConnectOptions) knows.
    ///
    /// The first use connects. The connections run in READ COMMITTED and call themselves `pgqueue`, unless the URL has an
    /// `application_name`. One that rested for a second is tested before it is used.
    ///
    /// TLS is required unless the URL says `sslmode=disable` or leads to a unix socket; `allow` and `prefer` mean
    /// `require`. As in libpq only `verify-ca` and `verify-full` look at the server's certificate.
    ///
    /// # Errors
    /// [`ClientError::Unusable`] for a URL that cannot be read, and for TLS without the feature `rustls`.
    async fn connect(url: &str) -> Result<Self, ClientError> {
        Ok(Self::from(connect::pool(connect::options(url)?)))
    }

    async fn query(&self, statement: &str, parameters: &[Parameter]) -> Result<Vec<SqlxRow>, ClientError> {
        let mut loan = self.pool.acquire().await?;
        let result = if self.unnamed {
            statement::run_in_transaction(loan.connection()?, statement, parameters).await
        } else {
            statement::run_prepared(loan.connection()?, statement, parameters).await
        };
        loan.end(&result);
        result.map_err(error::after_sending)
    }

    async fn run_script(&self, script: &str) -> Result<(), ClientError> {
        let mut loan = self.pool.acquire().await?;
        let connection = loan.connection()?;
        let result = connection.execute(sqlx::raw_sql(AssertSqlSafe(script))).await;
        if result.as_ref().is_err_and(error::leaves_connection_usable) {
            // The server says what is wrong before it has let its locks go, for which sqlx does not wait.
            connection.ping().await.ok();
        }
        loan.end(&result);
        result.map(drop).map_err(error::after_sending)
    }

    async fn begin(&self) -> Result<SqlxTransaction, ClientError> {
        Ok(SqlxTransaction::new(self.pool.begin().await?, self.unnamed))
    }

    fn max_connections(&self) -> usize {
        self.pool.inner().options().get_max_connections() as usize
    }

    /// Opens a connection of its own with the pool's connect options or [those it was given](Sqlx::with_listening); the pool is
    /// not asked, so that it may be small.
    ///
    /// Channels are names of 1 to 63 bytes without NUL, which is what PostgreSQL keeps of a name; any other is
    /// [`ClientError::Unusable`]. Once the connection is lost, every call is [`ClientError::Lost`]. Dropping it closes it.
    ///
    /// It is `None` behind a pooler, unless it was given options of its own: see
    /// [`with_unnamed_statements`](Sqlx::with_unnamed_statements).
    async fn open_listener(&self) -> Result<Option<Box<dyn ListenerConnection>>, ClientError> {
        let listener = match &self.listening {
            Some(options) => Listener::open(options).await?,
            None if self.unnamed => return Ok(None),
            None => Listener::open(&self.pool.inner().connect_options()).await?,
        };
        Ok(Some(Box::new(listener)))
    }
}
