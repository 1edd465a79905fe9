//! Clients that have few connections.

use deadpool_postgres::{Manager, Runtime};
use pgqueue_postgres::Client;
use pgqueue_sqlx::Sqlx;
use pgqueue_tokio_postgres::{Listening, TokioPostgres};
use sqlx::postgres::PgPoolOptions;
use tokio_postgres::{Config, NoTls};

pub(crate) trait Small: Client + Sized {
    fn of(url: &str, connections: usize) -> Self;
}

impl Small for TokioPostgres {
    fn of(url: &str, connections: usize) -> Self {
        let config: Config = url.parse().unwrap();
        let pool = deadpool_postgres::Pool::builder(Manager::new(config.clone(), NoTls));
        let pool = pool.max_size(connections).runtime(Runtime::Tokio1).build().unwrap();
        Self::from_pool(pool, Listening::with(config, NoTls))
    }
}

impl Small for Sqlx {
    fn of(url: &str, connections: usize) -> Self {
        let options = PgPoolOptions::new().max_connections(u32::try_from(connections).unwrap());
        Self::from(options.connect_lazy(url).unwrap())
    }
}
