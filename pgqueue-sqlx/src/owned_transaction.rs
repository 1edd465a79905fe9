//! [`SqlxTransaction`]: a transaction that has its connection to itself.

use std::fmt;

use async_trait::async_trait;
use pgqueue_postgres::{ClientError, OwnedTransaction, Parameter, Transaction};
use sqlx::{PgConnection, Postgres};

use crate::{
    Sqlx, SqlxRow,
    ended::{self, CloseIfDropped},
    error, statement,
};

/// A transaction on a connection of the pool that is its own until it ends.
///
/// Where [`sqlx::Transaction`] gives the connection back to its pool when it is dropped, with a `ROLLBACK` still to be sent,
/// this one closes it, by which the server rolls back.
pub struct SqlxTransaction {
    /// `None` once it has ended.
    open: Option<sqlx::Transaction<'static, Postgres>>,
    /// Whether a pooler gives each transaction another session.
    unnamed: bool,
}

impl SqlxTransaction {
    pub(crate) fn new(transaction: sqlx::Transaction<'static, Postgres>, unnamed: bool) -> Self {
        Self { open: Some(transaction), unnamed }
    }

    /// Returns the connection, whose statements are part of the transaction; what is begun on it is a savepoint. Leave its
    /// end to whoever began it: no `COMMIT`, no `ROLLBACK`.
    ///
    /// # Errors
    /// [`ClientError::Unusable`] if the transaction has ended.
    pub fn connection(&mut self) -> Result<&mut PgConnection, ClientError> {
        self.open.as_deref_mut().ok_or_else(has_ended)
    }

    fn take(&mut self) -> Result<sqlx::Transaction<'static, Postgres>, ClientError> {
        self.open.take().ok_or_else(has_ended)
    }
}

fn has_ended() -> ClientError {
    ClientError::Unusable("the transaction has ended".into())
}

#[async_trait]
impl OwnedTransaction for SqlxTransaction {
    type Row = SqlxRow;

    async fn query(&mut self, statement: &str, parameters: &[Parameter]) -> Result<Vec<SqlxRow>, ClientError> {
        let persistent = !self.unnamed;
        let rows = statement::run(self.connection()?, statement, parameters, persistent).await;
        rows.map_err(error::after_sending)
    }

    async fn execute(&mut self, statement: &str, parameters: &[Parameter]) -> Result<u64, ClientError> {
        let persistent = !self.unnamed;
        let affected = statement::execute(self.connection()?, statement, parameters, persistent).await;
        affected.map_err(error::after_sending)
    }

    async fn commit(mut self) -> Result<(), ClientError> {
        CloseIfDropped::new(self.take()?.commit()).await.map_err(error::after_sending)
    }

    async fn rollback(mut self) -> Result<(), ClientError> {
        CloseIfDropped::new(self.take()?.rollback()).await.map_err(error::after_sending)
    }
}

/// So that the queue's own work can be part of it.
#[async_trait]
impl Transaction<Sqlx> for SqlxTransaction {
    async fn query(&mut self, statement: &str, parameters: &[Parameter]) -> Result<Vec<SqlxRow>, ClientError> {
        OwnedTransaction::query(self, statement, parameters).await
    }
}

impl Drop for SqlxTransaction {
    fn drop(&mut self) {
        if let Some(transaction) = self.open.take() {
            ended::close_at_once(|| drop(transaction));
        }
    }
}

impl fmt::Debug for SqlxTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlxTransaction").finish_non_exhaustive()
    }
}
