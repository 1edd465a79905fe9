//! apalis, on its PostgreSQL storage.

use std::sync::Arc;

use anyhow::{Result, anyhow};
use apalis_core::{backend::TaskSink, error::BoxDynError, task::data::Data, worker::builder::WorkerBuilder};
use apalis_postgres::{Config, PgPool, PostgresStorage};
use futures::future::{BoxFuture, FutureExt};
use pgqueue_bench::{Measurement, Sink, Tally};
use sqlx_09::postgres::PgPoolOptions;
use tokio::task::JoinHandle;

use super::CONNECTIONS;
use crate::{
    job::Job,
    peer::{Peer, Style},
};

const QUEUE: &str = "bench";

/// How many tasks its best takes at a time.
const BUFFER: usize = 500;

pub(crate) struct Apalis {
    pool: PgPool,
}

pub(crate) struct Pusher(PostgresStorage<Job>);

fn storage(pool: &PgPool, config: Config) -> PostgresStorage<Job> {
    PostgresStorage::new(pool).with_config(config.queue(QUEUE))
}

async fn handle(job: Job, tally: Data<Arc<Tally>>) -> Result<(), BoxDynError> {
    tally.arrived(job.n);
    tally.settled(1);
    Ok(())
}

impl Peer for Apalis {
    type Sink = Pusher;
    type Ready = Vec<BoxFuture<'static, ()>>;
    type Working = Vec<JoinHandle<()>>;

    const LEFT: &'static str = "select count(*) from apalis.jobs where status <> 'Done'";

    async fn set_up(m: &Measurement) -> Result<Self> {
        // A worker listens on one of them.
        let connections = u32::try_from(2 * CONNECTIONS)?;
        let pool = PgPoolOptions::new().max_connections(connections).connect(&m.url()).await?;
        PostgresStorage::<()>::setup(&pool).await?;
        Ok(Self { pool })
    }

    async fn sink(&self) -> Result<Pusher> {
        Ok(Pusher(storage(&self.pool, Config::default())))
    }

    async fn consumers(&self, count: usize, style: Style, tally: Arc<Tally>) -> Result<Self::Ready> {
        let worker = |n: usize| {
            let config = match style {
                Style::Default | Style::Once => Config::default(),
                Style::Best | Style::ByKey => Config::default().batch_size(BUFFER).lock_tasks(false),
            };
            let worker = WorkerBuilder::new(format!("bench-{n}"))
                .backend(storage(&self.pool, config).with_pubsub())
                .data(Arc::clone(&tally))
                .build(handle);
            worker.run().map(drop).boxed()
        };
        Ok((0..count).map(worker).collect())
    }

    async fn start(ready: Self::Ready) -> Result<Self::Working> {
        Ok(ready.into_iter().map(tokio::spawn).collect())
    }

    async fn stop(working: Self::Working) -> Result<()> {
        for worker in working {
            worker.abort();
        }
        Ok(())
    }
}

impl Sink for Pusher {
    async fn put(&mut self, payloads: Vec<Vec<u8>>) -> Result<()> {
        let mut jobs = Job::parse_all(&payloads)?;
        let pushed = match jobs.len() {
            1 => self.0.push(jobs.remove(0)).await,
            _ => self.0.push_bulk(jobs).await,
        };
        pushed.map_err(|error| anyhow!("{error}"))
    }
}
