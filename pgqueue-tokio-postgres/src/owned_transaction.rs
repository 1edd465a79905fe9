//! [`TokioPostgresTransaction`]: a transaction that has its connection to itself.

use std::fmt;

use async_trait::async_trait;
use deadpool_postgres::Object;
use pgqueue_postgres::{ClientError, OwnedTransaction, Parameter, Transaction};
use tokio_postgres::Client;

use crate::loan::Loan;
use crate::statement::Bound;
use crate::{TokioPostgres, TokioPostgresRow, error};

/// A transaction on a connection of the pool that is its own until it ends.
///
/// tokio-postgres' own [`Transaction`](tokio_postgres::Transaction) borrows its client, so that nobody can hold both for as
/// long as a delivery lasts. This one is begun and ended by statements, and [lends](Self::client) the client to whoever
/// works inside of it.
///
/// Dropping it closes the connection, by which the server rolls back.
pub struct TokioPostgresTransaction {
    loan: Loan,
    /// Whether a pooler gives each transaction another session.
    unnamed: bool,
}

impl TokioPostgresTransaction {
    pub(crate) async fn begin(object: Object, unnamed: bool) -> Result<Self, ClientError> {
        let transaction = Self { loan: Loan::new(object), unnamed };
        let begun = transaction.client()?.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED").await;
        begun.map_err(error::calling)?;
        Ok(transaction)
    }

    /// Returns the client, whose statements are part of the transaction. Leave its end to whoever began it: no `COMMIT`,
    /// no `ROLLBACK`; savepoints are fine.
    ///
    /// # Errors
    /// [`ClientError::Unusable`] if the transaction has ended.
    pub fn client(&self) -> Result<&Client, ClientError> {
        self.loan.client().map(|client| &**client)
    }

    async fn end(self, statement: &str) -> Result<(), ClientError> {
        let ended = self.client()?.batch_execute(statement).await;
        self.loan.settle(ended)
    }
}

#[async_trait]
impl OwnedTransaction for TokioPostgresTransaction {
    type Row = TokioPostgresRow;

    async fn query(&mut self, statement: &str, parameters: &[Parameter]) -> Result<Vec<TokioPostgresRow>, ClientError> {
        let bound = Bound::all(parameters);
        let client = self.loan.client()?;
        let rows = if self.unnamed {
            client.query_typed(statement, &Bound::typed(&bound)).await
        } else {
            let prepared = client.prepare_typed_cached(statement, &Bound::types(&bound)).await;
            client.query(&prepared.map_err(error::calling)?, &Bound::untyped(&bound)).await
        };
        rows.map(TokioPostgresRow::all).map_err(error::calling)
    }

    async fn execute(&mut self, statement: &str, parameters: &[Parameter]) -> Result<u64, ClientError> {
        let bound = Bound::all(parameters);
        let client = self.loan.client()?;
        let affected = if self.unnamed {
            client.execute_typed(statement, &Bound::typed(&bound)).await
        } else {
            let prepared = client.prepare_typed_cached(statement, &Bound::types(&bound)).await;
            client.execute(&prepared.map_err(error::calling)?, &Bound::untyped(&bound)).await
        };
        affected.map_err(error::calling)
    }

    async fn commit(self) -> Result<(), ClientError> {
        self.end("COMMIT").await
    }

    async fn rollback(self) -> Result<(), ClientError> {
        self.end("ROLLBACK").await
    }
}

/// So that the queue's own work can be part of it.
#[async_trait]
impl Transaction<TokioPostgres> for TokioPostgresTransaction {
    async fn query(&mut self, statement: &str, parameters: &[Parameter]) -> Result<Vec<TokioPostgresRow>, ClientError> {
        OwnedTransaction::query(self, statement, parameters).await
    }
}

impl fmt::Debug for TokioPostgresTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokioPostgresTransaction").finish_non_exhaustive()
    }
}
