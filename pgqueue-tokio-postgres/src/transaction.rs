//! The transactions of tokio-postgres and of deadpool, in which the queue can work.

use async_trait::async_trait;
use pgqueue_postgres::{ClientError, Parameter, Transaction};

use crate::statement::Bound;
use crate::{TokioPostgres, TokioPostgresRow, error};

#[async_trait]
impl Transaction<TokioPostgres> for tokio_postgres::Transaction<'_> {
    async fn query(&mut self, statement: &str, parameters: &[Parameter]) -> Result<Vec<TokioPostgresRow>, ClientError> {
        let bound = Bound::all(parameters);
        let rows = self.query_typed(statement, &Bound::typed(&bound)).await;
        rows.map(TokioPostgresRow::all).map_err(error::calling)
    }
}

#[async_trait]
impl Transaction<TokioPostgres> for deadpool_postgres::Transaction<'_> {
    async fn query(&mut self, statement: &str, parameters: &[Parameter]) -> Result<Vec<TokioPostgresRow>, ClientError> {
        Transaction::<TokioPostgres>::query(&mut **self, statement, parameters).await
    }
}
