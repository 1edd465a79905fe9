//! [`Driver`]: a client, as the queue uses it and as one uses it by hand.

mod peer;
mod sqlx_peer;
mod tokio_postgres_peer;

use anyhow::Result;
use clap::ValueEnum;
pub(crate) use peer::{Argument, Peer};
use pgqueue_postgres::Client;
use pgqueue_sqlx::Sqlx;
use pgqueue_tokio_postgres::TokioPostgres;
use sqlx_peer::SqlxPeer;
use tokio_postgres_peer::TokioPostgresPeer;

/// A client by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DriverName {
    /// tokio-postgres.
    TokioPostgres,
    /// sqlx.
    Sqlx,
    /// None: the queue in memory.
    Memory,
}

pub(crate) trait Driver: Send + Sync + 'static {
    /// What the queue works through.
    type Client: Client;
    /// What everything else works through.
    type Peer: Peer;

    /// Makes the queue's client, with a pool of so many connections.
    fn client(url: &str, connections: usize) -> impl Future<Output = Result<Self::Client>> + Send;
}

pub(crate) struct TokioPostgresDriver;

impl Driver for TokioPostgresDriver {
    type Client = TokioPostgres;
    type Peer = TokioPostgresPeer;

    async fn client(url: &str, connections: usize) -> Result<TokioPostgres> {
        let client = TokioPostgres::connect(url).await.map_err(peer::of_client)?;
        client.with_pool_size(connections).map_err(peer::of_client)
    }
}

pub(crate) struct SqlxDriver;

impl Driver for SqlxDriver {
    type Client = Sqlx;
    type Peer = SqlxPeer;

    async fn client(url: &str, connections: usize) -> Result<Sqlx> {
        let options = sqlx::postgres::PgPoolOptions::new();
        let options = options.max_connections(u32::try_from(connections)?).test_before_acquire(false);
        Ok(Sqlx::from(options.connect(url).await?))
    }
}
