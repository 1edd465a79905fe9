//! [`Backend`]: an instance's connections and its writers' transactions, of either client.

use async_trait::async_trait;
use deadpool_postgres::{Manager, Pool, Runtime};
use pgqueue_postgres::{Client, PgQueue};
use pgqueue_sqlx::Sqlx;
use pgqueue_tokio_postgres::{Listening, TokioPostgres};
use sqlx::{Connection, PgConnection, postgres::PgPoolOptions};
use tokio_postgres::{Config, NoTls};

use crate::{PATIENCE, writer::Deed};

/// How many connections an instance has, beside the one that listens and those of its writers.
const CONNECTIONS: u16 = 6;

#[async_trait]
pub(crate) trait Backend: Client + Sized {
    type Connection: Send;

    /// The queue of an instance, over a pool of its own.
    fn queue(url: &str) -> PgQueue<Self>;

    async fn open(url: &str) -> Self::Connection;

    /// Does something in a transaction, which ends as the deed says.
    async fn transact(connection: &mut Self::Connection, deed: &mut Deed<'_, Self>);
}

#[async_trait]
impl Backend for TokioPostgres {
    type Connection = tokio_postgres::Client;

    fn queue(url: &str) -> PgQueue<Self> {
        let config: Config = url.parse().unwrap();
        let pool = Pool::builder(Manager::new(config.clone(), NoTls))
            .max_size(CONNECTIONS.into())
            .wait_timeout(Some(PATIENCE))
            .runtime(Runtime::Tokio1);
        PgQueue::new(Self::from_pool(pool.build().unwrap(), Listening::with(config, NoTls)))
    }

    async fn open(url: &str) -> Self::Connection {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    async fn transact(connection: &mut Self::Connection, deed: &mut Deed<'_, Self>) {
        let mut transaction = connection.transaction().await.unwrap();
        deed.publish_in(&mut transaction).await;
        let ended = if deed.commits() { transaction.commit().await } else { transaction.rollback().await };
        ended.unwrap();
    }
}

#[async_trait]
impl Backend for Sqlx {
    type Connection = PgConnection;

    fn queue(url: &str) -> PgQueue<Self> {
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS.into()).acquire_timeout(PATIENCE);
        PgQueue::new(pool.connect_lazy(url).unwrap())
    }

    async fn open(url: &str) -> Self::Connection {
        PgConnection::connect(url).await.unwrap()
    }

    async fn transact(connection: &mut Self::Connection, deed: &mut Deed<'_, Self>) {
        let mut transaction = connection.begin().await.unwrap();
        deed.publish_in(&mut transaction).await;
        let ended = if deed.commits() { transaction.commit().await } else { transaction.rollback().await };
        ended.unwrap();
    }
}
