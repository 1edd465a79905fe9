//! Transactions of the caller.
//!
//! Their statements run unnamed: the transaction holds them to one session, so this is right behind any pooler; and the
//! caller's connection keeps nothing of the queue's. It takes two round trips, or one where the connection happens to know
//! the statement from the queue's own work.

use async_trait::async_trait;
use pgqueue_postgres::{ClientError, Parameter, Transaction};
use sqlx::{PgConnection, Postgres};

use crate::{Sqlx, SqlxRow, error, statement};

/// # Cancel safety
///
/// After a dropped call it is unknown whether the statement ran; roll the transaction back.
#[async_trait]
impl Transaction<Sqlx> for sqlx::Transaction<'_, Postgres> {
    async fn query(&mut self, statement: &str, parameters: &[Parameter]) -> Result<Vec<SqlxRow>, ClientError> {
        Transaction::<Sqlx>::query(&mut **self, statement, parameters).await
    }
}

/// For a connection on which the caller began a transaction. Without one, each statement is committed by itself.
///
/// # Cancel safety
///
/// As for [`sqlx::Transaction`].
#[async_trait]
impl Transaction<Sqlx> for PgConnection {
    async fn query(&mut self, statement: &str, parameters: &[Parameter]) -> Result<Vec<SqlxRow>, ClientError> {
        statement::run(self, statement, parameters, false).await.map_err(error::after_sending)
    }
}
