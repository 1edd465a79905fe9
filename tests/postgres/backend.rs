//! [`Backend`]: what a test needs of a client beside the queue itself, which is a caller's own pools and transactions.

use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::{Manager, Runtime};
use futures::future::BoxFuture;
use pgqueue_core::{Delivery, Result};
use pgqueue_postgres::{Client, PgQueue, Transaction};
use pgqueue_sqlx::Sqlx;
use pgqueue_tokio_postgres::{Listening, TokioPostgres};
use sqlx::{
    AssertSqlSafe, Executor,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio_postgres::{Config, NoTls};

/// How long a caller's pool waits for a connection.
const POOL_WAIT: Duration = Duration::from_secs(2);

#[async_trait]
pub(crate) trait Backend: Client + Sized {
    type Open: Transaction<Self> + Send + 'static;

    /// A pool of the caller's.
    type Pool: Send + Sync;

    /// Begins a transaction on a connection of its own.
    async fn open(url: &str) -> Self::Open;

    /// Runs a statement of the caller's.
    async fn execute(transaction: &mut Self::Open, sql: &str);

    async fn commit(transaction: Self::Open);

    async fn rollback(transaction: Self::Open);

    /// Makes a pool of so many connections, whose sessions have this isolation level.
    fn pool(url: &str, connections: u32, isolation: &str) -> Self::Pool;

    /// The queue over a caller's pool.
    fn over(pool: &Self::Pool) -> PgQueue<Self>;

    /// Answers OK in a transaction of the caller's pool, and commits.
    async fn ok_in_of_pool(pool: &Self::Pool, queue: &PgQueue<Self>, delivery: Delivery) -> Result<()>;

    /// Does something while a transaction of the caller's pool is open.
    async fn meanwhile<T: Send>(pool: &Self::Pool, something: BoxFuture<'_, T>) -> T;
}

#[async_trait]
impl Backend for TokioPostgres {
    type Open = tokio_postgres::Transaction<'static>;
    type Pool = (deadpool_postgres::Pool, Config);

    async fn open(url: &str) -> Self::Open {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(connection);
        // The transaction borrows its client, which lives as long as the test's runtime.
        Box::leak(Box::new(client)).transaction().await.unwrap()
    }

    async fn execute(transaction: &mut Self::Open, sql: &str) {
        transaction.batch_execute(sql).await.unwrap();
    }

    async fn commit(transaction: Self::Open) {
        transaction.commit().await.unwrap();
    }

    async fn rollback(transaction: Self::Open) {
        transaction.rollback().await.unwrap();
    }

    fn pool(url: &str, connections: u32, isolation: &str) -> Self::Pool {
        let mut config: Config = url.parse().unwrap();
        config.options(format!("-c default_transaction_isolation={}", isolation.replace(' ', "\\ ")));
        let pool = deadpool_postgres::Pool::builder(Manager::new(config.clone(), NoTls))
            .max_size(connections as usize)
            .wait_timeout(Some(POOL_WAIT))
            .runtime(Runtime::Tokio1);
        (pool.build().unwrap(), config)
    }

    fn over((pool, config): &Self::Pool) -> PgQueue<Self> {
        PgQueue::new(Self::from_pool(pool.clone(), Listening::with(config.clone(), NoTls)))
    }

    async fn ok_in_of_pool((pool, _): &Self::Pool, queue: &PgQueue<Self>, delivery: Delivery) -> Result<()> {
        let mut connection = pool.get().await.unwrap();
        let mut transaction = connection.transaction().await.unwrap();
        queue.ok_in(delivery, &mut transaction).await?;
        transaction.commit().await.unwrap();
        Ok(())
    }

    async fn meanwhile<T: Send>((pool, _): &Self::Pool, something: BoxFuture<'_, T>) -> T {
        let mut connection = pool.get().await.unwrap();
        let transaction = connection.transaction().await.unwrap();
        let done = something.await;
        transaction.rollback().await.unwrap();
        done
    }
}

#[async_trait]
impl Backend for Sqlx {
    type Open = sqlx::Transaction<'static, sqlx::Postgres>;
    type Pool = sqlx::PgPool;

    async fn open(url: &str) -> Self::Open {
        PgPoolOptions::new().max_connections(1).connect(url).await.unwrap().begin().await.unwrap()
    }

    async fn execute(transaction: &mut Self::Open, sql: &str) {
        (&mut **transaction).execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
    }

    async fn commit(transaction: Self::Open) {
        transaction.commit().await.unwrap();
    }

    async fn rollback(transaction: Self::Open) {
        transaction.rollback().await.unwrap();
    }

    fn pool(url: &str, connections: u32, isolation: &str) -> Self::Pool {
        let options: PgConnectOptions = url.parse().unwrap();
        let options = options.options([("default_transaction_isolation", isolation)]);
        PgPoolOptions::new().max_connections(connections).acquire_timeout(POOL_WAIT).connect_lazy_with(options)
    }

    fn over(pool: &Self::Pool) -> PgQueue<Self> {
        PgQueue::new(pool.clone())
    }

    async fn ok_in_of_pool(pool: &Self::Pool, queue: &PgQueue<Self>, delivery: Delivery) -> Result<()> {
        let mut transaction = pool.begin().await.unwrap();
        queue.ok_in(delivery, &mut transaction).await?;
        transaction.commit().await.unwrap();
        Ok(())
    }

    async fn meanwhile<T: Send>(pool: &Self::Pool, something: BoxFuture<'_, T>) -> T {
        let transaction = pool.begin().await.unwrap();
        let done = something.await;
        transaction.rollback().await.unwrap();
        done
    }
}
