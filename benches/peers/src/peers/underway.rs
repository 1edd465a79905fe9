//! underway.

use std::sync::Arc;

use anyhow::Result;
use jiff::{Span, ToSpan};
use pgqueue_bench::{Measurement, Sink, Tally};
use sqlx_08::{PgPool, Postgres, Transaction, postgres::PgPoolOptions};
use tokio::{
    runtime::Handle,
    task::{JoinHandle, spawn_blocking},
};
use underway::{Queue, Task, Worker};

use super::CONNECTIONS;
use crate::{
    job::Job,
    peer::{Peer, Style},
};

pub(crate) struct Underway {
    pool: PgPool,
    queue: Arc<Queue<Handler>>,
}

/// What handles a job, and says how it is enqueued.
#[derive(Clone)]
pub(crate) struct Handler(Arc<Tally>);

impl Task for Handler {
    type Input = Job;
    type Output = ();

    async fn execute(&self, transaction: Transaction<'_, Postgres>, job: Job) -> underway::task::Result<()> {
        self.0.arrived(job.n);
        transaction.commit().await?;
        self.0.settled(1);
        Ok(())
    }
}

pub(crate) struct Enqueuer {
    pool: PgPool,
    queue: Arc<Queue<Handler>>,
    handler: Handler,
}

/// A worker, and how often it looks: for each look it works on one more job at a time, up to its limit.
pub(crate) struct Workers {
    worker: Worker<Handler>,
    every: Span,
}

impl Peer for Underway {
    type Sink = Enqueuer;
    type Ready = Workers;
    type Working = (Worker<Handler>, JoinHandle<Result<()>>);

    const LEFT: &'static str = "select count(*) from underway.task where state in ('pending', 'in_progress')";

    async fn set_up(m: &Measurement) -> Result<Self> {
        // A worker listens on two of them.
        let connections = u32::try_from(2 + CONNECTIONS)?;
        let pool = PgPoolOptions::new().max_connections(connections).connect(&m.url()).await?;
        // Its future is not one that can be sent between threads.
        let (here, migrated) = (Handle::current(), pool.clone());
        spawn_blocking(move || here.block_on(underway::run_migrations(&migrated))).await??;
        let queue = Queue::builder().name("bench").pool(pool.clone()).build().await?;
        Ok(Self { pool, queue: Arc::new(queue) })
    }

    async fn sink(&self) -> Result<Enqueuer> {
        let handler = Handler(Arc::new(Tally::new(None)));
        Ok(Enqueuer { pool: self.pool.clone(), queue: Arc::clone(&self.queue), handler })
    }

    async fn consumers(&self, count: usize, style: Style, tally: Arc<Tally>) -> Result<Workers> {
        let mut worker = Worker::new(Arc::clone(&self.queue), Handler(tally));
        worker.set_concurrency_limit(count);
        let every = match style {
            Style::Default | Style::Once => 1.minute(),
            Style::Best | Style::ByKey => 10.milliseconds(),
        };
        Ok(Workers { worker, every })
    }

    async fn start(Workers { worker, every }: Workers) -> Result<Self::Working> {
        let running = worker.clone();
        Ok((worker, tokio::spawn(async move { Ok(running.run_every(every).await?) })))
    }

    async fn stop((worker, running): Self::Working) -> Result<()> {
        worker.shutdown();
        running.await?
    }
}

impl Sink for Enqueuer {
    async fn put(&mut self, payloads: Vec<Vec<u8>>) -> Result<()> {
        let jobs = Job::parse_all(&payloads)?;
        match jobs.as_slice() {
            [job] => self.queue.enqueue(&self.pool, &self.handler, job).await.map(drop)?,
            jobs => self.queue.enqueue_multi(&self.pool, &self.handler, jobs).await.map(drop)?,
        }
        Ok(())
    }
}
