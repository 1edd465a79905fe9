//! sqlxmq.

use std::sync::Arc;

use anyhow::Result;
use pgqueue_bench::{Measurement, Sink, Tally};
use sqlx_08::{PgPool, postgres::PgPoolOptions};
use sqlxmq::{JobBuilder, JobRunnerHandle, JobRunnerOptions};

use super::CONNECTIONS;
use crate::{
    job::Job,
    migrations::migrate,
    peer::{ByKey, Peer, Style},
};

/// What its job and its channel are called.
const NAME: &str = "bench";

/// How many jobs its best has in hand: it asks for more when they are fewer than the first number.
const MANY: (usize, usize) = (100, 200);

pub(crate) struct Sqlxmq {
    pool: PgPool,
}

pub(crate) struct Spawner(PgPool);

impl Peer for Sqlxmq {
    type Sink = Spawner;
    type Ready = JobRunnerOptions;
    type Working = JobRunnerHandle;

    // One row is a sentinel.
    const LEFT: &'static str = "select count(*) from mq_msgs where id <> '00000000-0000-0000-0000-000000000000'";

    async fn set_up(m: &Measurement) -> Result<Self> {
        // It would create the extension where PostgreSQL 17 and newer do not look for what an index calls.
        m.sql("create extension \"uuid-ossp\" schema pg_catalog").await?;
        migrate(m, env!("SQLXMQ_SQL")).await?;
        let connections = u32::try_from(CONNECTIONS)?;
        Ok(Self { pool: PgPoolOptions::new().max_connections(connections).connect(&m.url()).await? })
    }

    async fn sink(&self) -> Result<Spawner> {
        Ok(Spawner(self.pool.clone()))
    }

    async fn consumers(&self, count: usize, style: Style, tally: Arc<Tally>) -> Result<JobRunnerOptions> {
        let mut options = JobRunnerOptions::new(&self.pool, move |mut job| {
            let tally = Arc::clone(&tally);
            tokio::spawn(async move {
                tally.arrived(Job::parse(job.raw_json().unwrap_or_default().as_bytes())?.n);
                job.complete().await?;
                tally.settled(1);
                anyhow::Ok(())
            });
        });
        let (least, most) = match style {
            Style::Default | Style::Once => (count, count),
            Style::Best | Style::ByKey => MANY,
        };
        options.set_concurrency(least, most).set_channel_names(&[NAME]);
        Ok(options)
    }

    async fn start(options: JobRunnerOptions) -> Result<JobRunnerHandle> {
        Ok(options.run().await?)
    }

    async fn stop(handle: JobRunnerHandle) -> Result<()> {
        drop(handle);
        Ok(())
    }
}

impl Sink for Spawner {
    async fn put(&mut self, payloads: Vec<Vec<u8>>) -> Result<()> {
        for payload in payloads {
            let json = str::from_utf8(&payload)?;
            JobBuilder::new(NAME).set_channel_name(NAME).set_raw_json(json).spawn(&self.0).await?;
        }
        Ok(())
    }
}

impl ByKey for Sqlxmq {
    async fn put_keyed(&self, messages: Vec<(&str, Vec<u8>)>) -> Result<()> {
        for (key, payload) in messages {
            let json = str::from_utf8(&payload)?;
            let mut job = JobBuilder::new(NAME);
            job.set_channel_name(NAME).set_channel_args(key).set_ordered(true).set_raw_json(json);
            job.spawn(&self.pool).await?;
        }
        Ok(())
    }
}
