//! [`Backend`]: what publishers do in transactions of their own, with either client.

use anyhow::Result;
use async_trait::async_trait;
use pgqueue_core::NewMessage;
use pgqueue_postgres::{Client, PgQueue};
use pgqueue_sqlx::Sqlx;
use pgqueue_tokio_postgres::TokioPostgres;
use sqlx::{Connection, Executor, PgConnection};
use tokio_postgres::NoTls;

/// What is done in one transaction, in order.
#[derive(Debug)]
pub(crate) enum Step {
    Publish(NewMessage),
    /// Runs a statement without parameters.
    Run(String),
    Commit,
    RollBack,
}

/// How far a transaction came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reached {
    /// All steps were confirmed.
    End,
    /// It failed before its commit was sent.
    NoCommit,
    /// Its commit was sent, and no answer came.
    Commit,
}

#[async_trait]
pub(crate) trait Backend: Client + Sized {
    /// A connection of the publisher's own.
    type Connection: Send;

    async fn open(url: &str) -> Result<Self::Connection>;

    /// Does the steps of a transaction.
    async fn transact(
        queue: &PgQueue<Self>,
        connection: &mut Self::Connection,
        topic: &str,
        steps: Vec<Step>,
    ) -> Reached;
}

/// The body of [`Backend::transact`], which is the same text for transactions of either client.
macro_rules! transact {
    ($queue:ident, $transaction:expr, $topic:ident, $steps:ident, |$open:ident, $sql:ident| $run:expr) => {{
        let Ok(mut $open) = $transaction.await else { return Reached::NoCommit };
        for step in $steps {
            let done = match step {
                Step::Publish(message) => $queue.publish_in(&mut $open, $topic, vec![message]).await.is_ok(),
                Step::Run($sql) => $run.await.is_ok(),
                Step::Commit => return if $open.commit().await.is_ok() { Reached::End } else { Reached::Commit },
                Step::RollBack => break,
            };
            if !done {
                return Reached::NoCommit;
            }
        }
        if $open.rollback().await.is_ok() { Reached::End } else { Reached::NoCommit }
    }};
}

#[async_trait]
impl Backend for TokioPostgres {
    type Connection = tokio_postgres::Client;

    async fn open(url: &str) -> Result<Self::Connection> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    async fn transact(
        queue: &PgQueue<Self>,
        connection: &mut Self::Connection,
        topic: &str,
        steps: Vec<Step>,
    ) -> Reached {
        transact!(queue, connection.transaction(), topic, steps, |open, sql| open.batch_execute(&sql))
    }
}

#[async_trait]
impl Backend for Sqlx {
    type Connection = PgConnection;

    async fn open(url: &str) -> Result<Self::Connection> {
        Ok(PgConnection::connect(url).await?)
    }

    async fn transact(
        queue: &PgQueue<Self>,
        connection: &mut Self::Connection,
        topic: &str,
        steps: Vec<Step>,
    ) -> Reached {
        transact!(queue, connection.begin(), topic, steps, |open, sql| open
            .execute(sqlx::raw_sql(sqlx::AssertSqlSafe(sql))))
    }
}
