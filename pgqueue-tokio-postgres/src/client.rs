//! [`TokioPostgres`]: the client.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::{ClientWrapper, Manager, Object, Pool, QueueMode, Runtime, Timeouts};
use pgqueue_postgres::{Client, ClientError, ListenerConnection, Parameter};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, Error, NoTls, Row};

use crate::loan::Loan;
use crate::statement::Bound;
use crate::{Listening, Tls, TokioPostgresRow, TokioPostgresTransaction, error, settings, tls};

/// How many connections a pool has, unless its maker says otherwise.
const POOL_SIZE: usize = 16;

/// How long to wait for a connection of the pool, unless the pool itself says.
const POOL_WAIT: Duration = Duration::from_secs(5);

/// PostgreSQL through tokio-postgres: a pool for statements, and a connection of its own for notifications.
///
/// Connections are opened when they are needed. See the [crate's documentation](crate) for TLS and for what it sets on
/// connections that it opens itself.
///
/// # Cancel safety
/// Dropping the future of a call means either outcome. Its connection is closed, not given back to the pool.
pub struct TokioPostgres {
    pool: Pool,
    listening: Listening,
    /// Makes a pool of another size; `None` for a pool that came from outside.
    remake: Option<Box<MakePool>>,
    /// Whether a pooler gives each transaction another session.
    unnamed: bool,
}

type MakePool = dyn Fn(usize) -> Result<Pool, ClientError> + Send + Sync;

impl TokioPostgres {
    /// Makes a client with a pool of its own, whose connections use the connector `tls`.
    ///
    /// [`SslMode::Prefer`](tokio_postgres::config::SslMode::Prefer), which is the default of `Config`, is taken for
    /// `Require`. For connections without TLS, say `Disable`; [`NoTls`] will do as the connector then. Hosts that are Unix
    /// sockets only never use TLS.
    ///
    /// # Errors
    /// [`ClientError::Unusable`] if `config` names no host.
    pub fn with_tls(config: Config, tls: impl Tls) -> Result<Self, ClientError> {
        settings::ensure_host(&config)?;
        let pooled = settings::for_queue(config.clone());
        let timeouts =
            Timeouts { wait: Some(POOL_WAIT), create: Some(settings::time_to_connect(&pooled)), recycle: None };
        let connector = tls.clone();
        let make = move |size| {
            let pool = Pool::builder(Manager::new(pooled.clone(), connector.clone()));
            // Of few connections that are used again and again, each has statements and functions ready.
            let pool = pool.queue_mode(QueueMode::Lifo).max_size(size).timeouts(timeouts).runtime(Runtime::Tokio1);
            pool.build().map_err(|source| ClientError::Unusable(source.into()))
        };
        Ok(Self {
            pool: make(POOL_SIZE)?,
            listening: Listening::with(config, tls),
            remake: Some(Box::new(make)),
            unnamed: false,
        })
    }

    /// Makes a client from a pool that exists, which may serve others too.
    ///
    /// The pool's connections are used as they are: their isolation level must be READ COMMITTED, and whether they are
    /// encrypted was decided where the pool was made. A pool without a wait timeout is waited for 5 seconds.
    #[must_use]
    pub fn from_pool(pool: Pool, listening: Listening) -> Self {
        Self { pool, listening, remake: None, unnamed: false }
    }

    /// Sets how many connections the pool may have, apart from the one for notifications: 16 unless said otherwise. It
    /// replaces the pool, so say it before the client is used.
    ///
    /// # Errors
    /// [`ClientError::Unusable`] if the pool came through [`from_pool`](Self::from_pool), or if `size` is 0.
    pub fn with_pool_size(mut self, size: usize) -> Result<Self, ClientError> {
        // Not by resizing: a pool of deadpool that is not full yet goes on as if it had its old size.
        let make = self.remake.as_ref().filter(|_| size > 0);
        let make = make.ok_or_else(|| ClientError::Unusable("this pool cannot be given such a size".into()))?;
        self.pool = make(size)?;
        Ok(self)
    }

    /// Whether to be correct behind a pooler in transaction mode that does not know prepared statements. Default: `false`.
    ///
    /// By default a statement is prepared once for each connection, and from then on takes one round trip. Behind such a
    /// pooler (PgBouncer before 1.21, or with `max_prepared_statements = 0`) the session in which it was prepared may be
    /// another client's by then. With `true`, each statement runs unnamed; this too takes one round trip, in which the
    /// server reads and plans it again. Nor does such a pooler deliver notifications: a [`Listening`] must lead past it.
    #[must_use]
    pub fn with_unnamed_statements(mut self, unnamed: bool) -> Self {
        self.unnamed = unnamed;
        self
    }

    /// Takes a connection from the pool, within the time that the pool, or else this crate, sets for it.
    async fn object(&self) -> Result<Object, ClientError> {
        if self.pool.timeouts().wait.is_some() {
            return self.pool.get().await.map_err(error::pooling);
        }
        // A wait timeout of deadpool's would need a pool that was made with a runtime.
        timeout(POOL_WAIT, self.pool.get()).await.map_or_else(
            |elapsed| {
                let status = self.pool.status();
                let waited_for_others = status.size >= status.max_size;
                let error = if waited_for_others { ClientError::PoolExhausted } else { ClientError::Unreachable };
                Err(error(elapsed.into()))
            },
            |object| object.map_err(error::pooling),
        )
    }
}

#[async_trait]
impl Client for TokioPostgres {
    type Row = TokioPostgresRow;
    type Transaction = TokioPostgresTransaction;

    /// Makes a client with a pool of its own for `url`: a `postgres://` URL, or a string of `key=value` pairs, as
    /// [`Config`] reads them.
    ///
    /// With `sslmode=disable`, and for hosts that are Unix sockets only, connections are plain. Else they use TLS, which
    /// takes the feature `rustls`; without it, there is [`with_tls`](Self::with_tls).
    ///
    /// # Errors
    /// [`ClientError::Unusable`] if `url` cannot be read or names no host, or if TLS is missing. The server is not reached
    /// before it is needed.
    async fn connect(url: &str) -> Result<Self, ClientError> {
        let config = settings::parse(url)?;
        if settings::is_plain(&config) {
            return Self::with_tls(config, NoTls);
        }
        let tls = tls::bundled(&config)?;
        Self::with_tls(config, tls)
    }

    async fn query(&self, statement: &str, parameters: &[Parameter]) -> Result<Vec<TokioPostgresRow>, ClientError> {
        let bound = Bound::all(parameters);
        let loan = Loan::new(self.object().await?);
        let client = loan.client()?;
        let rows = if self.unnamed {
            client.query_typed(statement, &Bound::typed(&bound)).await
        } else {
            run_prepared(client, statement, &bound).await
        };
        Ok(TokioPostgresRow::all(loan.settle(rows)?))
    }

    async fn run_script(&self, script: &str) -> Result<(), ClientError> {
        let loan = Loan::new(self.object().await?);
        let client = loan.client()?;
        let done = client.batch_execute(script).await;
        loan.settle(done)
    }

    async fn begin(&self) -> Result<TokioPostgresTransaction, ClientError> {
        TokioPostgresTransaction::begin(self.object().await?, self.unnamed).await
    }

    fn max_connections(&self) -> usize {
        self.pool.status().max_size
    }

    async fn open_listener(&self) -> Result<Option<Box<dyn ListenerConnection>>, ClientError> {
        self.listening.open().await
    }
}

/// Runs a statement that is prepared once for each connection.
async fn run_prepared(client: &ClientWrapper, statement: &str, bound: &[Bound<'_>]) -> Result<Vec<Row>, Error> {
    let types = Bound::types(bound);
    let parameters = Bound::untyped(bound);
    let prepared = client.prepare_typed_cached(statement, &types).await?;
    match client.query(&prepared, &parameters).await {
        Err(error) if is_stale(&error) => {
            client.statement_cache.remove(statement, &types);
            let prepared = client.prepare_typed_cached(statement, &types).await?;
            client.query(&prepared, &parameters).await
        }
        answer => answer,
    }
}

/// Returns whether a prepared statement was refused, before it did anything, as the session has forgotten it or its result has
/// other columns since.
fn is_stale(error: &Error) -> bool {
    error.as_db_error().is_some_and(|refusal| {
        *refusal.code() == SqlState::INVALID_SQL_STATEMENT_NAME || refusal.routine() == Some("RevalidateCachedQuery")
    })
}

impl fmt::Debug for TokioPostgres {
    /// Shows how busy the pool is, and nothing of its configuration, which holds secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pool, listening, remake: _, unnamed } = self;
        f.debug_struct("TokioPostgres")
            .field("pool", &pool.status())
            .field("listening", listening)
            .field("unnamed_statements", unnamed)
            .finish()
    }
}
