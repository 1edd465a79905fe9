//! [`Listener`]: a connection that listens.

use std::panic::{AssertUnwindSafe, catch_unwind};

use async_trait::async_trait;
use pgqueue_postgres::{ClientError, LISTENING, ListenerConnection, Notification};
use sqlx::{
    Acquire as _, Error,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};

use crate::{
    ended, error,
    pool::{self, Pool},
};

/// What PostgreSQL keeps of a name; the rest would be cut off silently.
const LONGEST_NAME: usize = 63;

/// A listener of sqlx that does not reconnect: with another connection, notifications would be missing.
///
/// It reconnects only while it has no connection, and that it loses in `try_recv` alone, upon which it is dropped here.
pub(crate) struct Listener(Option<PgListener>);

impl Listener {
    /// Connects, in a pool of one that nobody else uses.
    pub(crate) async fn open(options: &PgConnectOptions) -> Result<Self, ClientError> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(pool::LONGEST_WAIT)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_lazy_with(options.clone());
        let pool = Pool::new(pool);
        match PgListener::connect_with(pool.inner()).await {
            Ok(mut listener) => {
                listener.eager_reconnect(false);
                listener.ignore_pool_close_event(true);
                Ok(Self(Some(listener)))
            }
            Err(Error::PoolTimedOut) => Err(pool.why_not().await),
            Err(error) => Err(error::before_sending(error)),
        }
    }

    fn inner(&mut self) -> Result<&mut PgListener, ClientError> {
        self.0.as_mut().ok_or_else(|| ClientError::Lost("the listening connection was lost before".into()))
    }

    /// Closes the connection unless its server has just refused something on it.
    fn check<T>(&mut self, result: Result<T, Error>) -> Result<T, ClientError> {
        result.map_err(|error| {
            if !matches!(error, Error::Database(_)) {
                self.close();
            }
            error::after_sending(error)
        })
    }

    fn close(&mut self) {
        if let Some(listener) = self.0.take() {
            ended::close_at_once(|| drop(listener));
        }
    }
}

#[async_trait]
impl ListenerConnection for Listener {
    async fn listen(&mut self, channel: &str) -> Result<(), ClientError> {
        check_name(channel)?;
        let result = self.inner()?.listen(channel).await;
        self.check(result)
    }

    async fn unlisten(&mut self, channel: &str) -> Result<(), ClientError> {
        check_name(channel)?;
        let result = self.inner()?.unlisten(channel).await;
        self.check(result)
    }

    async fn ping(&mut self) -> Result<i64, ClientError> {
        let listener = self.inner()?;
        let result = async {
            let connection = listener.acquire().await?;
            sqlx::query_scalar(LISTENING).persistent(false).fetch_one(connection).await
        }
        .await;
        self.check(result)
    }

    async fn next(&mut self) -> Result<Notification, ClientError> {
        let result = self.inner()?.try_recv().await;
        let Some(notification) = self.check(result)? else {
            self.close();
            return Err(ClientError::Lost("the server closed the listening connection".into()));
        };
        // A database without an encoding passes on any bytes, and sqlx panics at what is not UTF-8.
        catch_unwind(AssertUnwindSafe(|| Notification::new(notification.channel(), notification.payload())))
            .map_err(|_| ClientError::Unusable("a notification is not UTF-8".into()))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.close();
    }
}

/// sqlx quotes a name, but cuts it at a NUL, as PostgreSQL does at its greatest length.
fn check_name(channel: &str) -> Result<(), ClientError> {
    if channel.is_empty() || channel.len() > LONGEST_NAME || channel.contains('\0') {
        let message = format!("{channel:?} cannot be a channel: its name has 1 to {LONGEST_NAME} bytes without NUL");
        return Err(ClientError::Unusable(message.into()));
    }
    Ok(())
}
