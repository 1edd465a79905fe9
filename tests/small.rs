//! Clients that have few connections.

use deadpool_postgres::{Manager, Runtime};
use pgqueue_postgres::Client;
use pgqueue_sqlx::Sqlx;
use pgqueue_tokio_postgres::{Listening, TokioPostgres};
use sqlx::postgres::PgPoolOptions;
use tokio_postgres::{Config, NoTls};

#[allow(dead_code, reason = "each test uses a part")]
pub(crate) trait Small: Client + Sized {
    fn of(url: &str, connections: usize) -> Self;

    /// Right behind a pooler in transaction mode, and without a connection that listens.
    fn behind_pooler(url: &str, connections: usize) -> Self;

    /// Right behind a pooler in transaction mode, and with a connection that listens.
    fn behind_pooler_listening(url: &str, connections: usize, listening: &str) -> Self;
}

fn deadpool(config: Config, connections: usize) -> deadpool_postgres::Pool {
    let pool = deadpool_postgres::Pool::builder(Manager::new(config, NoTls));
    pool.max_size(connections).runtime(Runtime::Tokio1).build().unwrap()
}

impl Small for TokioPostgres {
    fn of(url: &str, connections: usize) -> Self {
        let config: Config = url.parse().unwrap();
        Self::from_pool(deadpool(config.clone(), connections), Listening::with(config, NoTls))
    }

    fn behind_pooler(url: &str, connections: usize) -> Self {
        let pool = deadpool(url.parse().unwrap(), connections);
        Self::from_pool(pool, Listening::poll_only()).with_unnamed_statements(true)
    }

    fn behind_pooler_listening(url: &str, connections: usize, listening: &str) -> Self {
        let pool = deadpool(url.parse().unwrap(), connections);
        Self::from_pool(pool, Listening::with(listening.parse().unwrap(), NoTls)).with_unnamed_statements(true)
    }
}

impl Small for Sqlx {
    fn of(url: &str, connections: usize) -> Self {
        let options = PgPoolOptions::new().max_connections(u32::try_from(connections).unwrap());
        Self::from(options.connect_lazy(url).unwrap())
    }

    fn behind_pooler(url: &str, connections: usize) -> Self {
        Self::of(url, connections).with_unnamed_statements(true)
    }

    fn behind_pooler_listening(url: &str, connections: usize, listening: &str) -> Self {
        Self::behind_pooler(url, connections).with_listening(listening.parse().unwrap())
    }
}
