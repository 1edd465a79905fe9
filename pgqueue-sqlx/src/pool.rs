//! [`Pool`]: connections on loan, and why there is none.

use std::time::Duration;

use pgqueue_postgres::ClientError;
use sqlx::{
    ConnectOptions as _, Connection as _, Error, PgConnection, PgPool, Postgres, Transaction, pool::PoolConnection,
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use crate::{
    ended::{self, CloseIfDropped},
    error,
};

/// How long a call waits for a connection at most.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How long somebody who waited in vain looks for the reason.
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// How long it is believed that the server answers.
const BELIEF: Duration = Duration::from_secs(1);

pub(crate) struct Pool {
    inner: PgPool,
    /// When the server was last reached outside of the pool. Locked while somebody tries, so that a crowd of waiters does
    /// not become a crowd of connections.
    reached: Mutex<Option<Instant>>,
}

impl Pool {
    pub(crate) fn new(inner: PgPool) -> Self {
        Self { inner, reached: Mutex::default() }
    }

    pub(crate) fn inner(&self) -> &PgPool {
        &self.inner
    }

    /// Takes a connection from the pool.
    pub(crate) async fn acquire(&self) -> Result<Loan, ClientError> {
        match timeout(LONGEST_WAIT, self.inner.acquire()).await.unwrap_or(Err(Error::PoolTimedOut)) {
            Ok(connection) => Ok(Loan(Some(connection))),
            Err(Error::PoolTimedOut) => Err(self.why_not().await),
            Err(error) => Err(error::before_sending(error)),
        }
    }

    /// Begins a transaction on a connection of the pool.
    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Postgres>, ClientError> {
        let begun = CloseIfDropped::new(self.inner.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED"));
        match timeout(LONGEST_WAIT, begun).await.unwrap_or(Err(Error::PoolTimedOut)) {
            Err(Error::PoolTimedOut) => Err(self.why_not().await),
            begun => begun.map_err(error::before_sending),
        }
    }

    /// Finds out why the pool gave no connection in time: sqlx says the same of a pool whose connections are all in use
    /// and of a server that cannot be reached.
    pub(crate) async fn why_not(&self) -> ClientError {
        let full = self.inner.size() >= self.inner.options().get_max_connections();
        let look = async {
            let mut reached = self.reached.lock().await;
            if reached.is_none_or(|reached| reached.elapsed() > BELIEF) {
                let connection = self.inner.connect_options().connect().await?;
                *reached = Some(Instant::now());
                drop(connection.close().await);
            }
            Ok(())
        };
        match timeout(LONGEST_LOOK, look).await {
            Ok(Ok(())) if full => ClientError::PoolExhausted(Error::PoolTimedOut.into()),
            Ok(Ok(())) => ClientError::Unreachable(Error::PoolTimedOut.into()),
            Ok(Err(error)) => error::before_sending(error),
            Err(_) => ClientError::Unreachable("the server did not answer in time".into()),
        }
    }
}

/// A connection of the pool. It goes back only by [`end`](Self::end); dropped before, it is closed, because an answer may
/// be outstanding.
pub(crate) struct Loan(Option<PoolConnection<Postgres>>);

impl Loan {
    pub(crate) fn connection(&mut self) -> Result<&mut PgConnection, ClientError> {
        self.0.as_deref_mut().ok_or_else(|| ClientError::Unusable("the connection was given back".into()))
    }

    /// Gives the connection back, unless `result` says that it cannot be used again.
    pub(crate) fn end<T>(mut self, result: &Result<T, Error>) {
        if result.as_ref().err().is_none_or(error::leaves_connection_usable) {
            drop(self.0.take()); // sqlx spawns its return
        }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            ended::close_at_once(|| drop(connection.detach()));
        }
    }
}
