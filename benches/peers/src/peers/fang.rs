//! fang, with its asynchronous workers.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use async_trait::async_trait;
use fang::{
    AsyncRunnable, FangError, SleepParams,
    asynk::{
        async_queue::{AsyncQueue, AsyncQueueable},
        async_worker_pool::AsyncWorkerPool,
    },
};
use pgqueue_bench::{Measurement, Sink, Tally};
use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, Runtime};

use super::CONNECTIONS;
use crate::{
    job::Job,
    migrations::migrate,
    peer::{Peer, Style},
};

/// For how long its best sleeps when it finds nothing.
const SLEEP: Duration = Duration::from_millis(10);

pub(crate) struct Fang {
    url: String,
    queue: AsyncQueue,
}

pub(crate) struct Inserter(AsyncQueue);

/// Workers, and where they run: they cannot be stopped otherwise.
pub(crate) struct Workers {
    pool: AsyncWorkerPool<AsyncQueue>,
    place: Place,
}

/// A runtime that may be dropped anywhere.
pub(crate) struct Place(Option<Runtime>);

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Who counts: its tasks are given nothing but their own fields.
static TALLY: Mutex<Option<Arc<Tally>>> = Mutex::new(None);

#[derive(Deserialize, Serialize)]
struct Task {
    job: Job,
}

#[typetag::serde]
#[async_trait]
impl AsyncRunnable for Task {
    async fn run(&self, _: &dyn AsyncQueueable) -> Result<(), FangError> {
        if let Some(tally) = &*TALLY.lock().unwrap_or_else(PoisonError::into_inner) {
            tally.arrived(self.job.n);
            tally.settled(1);
        }
        Ok(())
    }
}

async fn connect(url: String) -> Result<AsyncQueue> {
    let mut queue = AsyncQueue::builder().uri(url).max_pool_size(u32::try_from(CONNECTIONS)?).build();
    queue.connect().await?;
    Ok(queue)
}

impl Peer for Fang {
    type Sink = Inserter;
    type Ready = Workers;
    type Working = Place;

    const LEFT: &'static str = "select count(*) from fang_tasks where state in ('new', 'in_progress', 'retried')";

    async fn set_up(m: &Measurement) -> Result<Self> {
        migrate(m, env!("FANG_SQL")).await?;
        Ok(Self { url: m.url(), queue: connect(m.url()).await? })
    }

    async fn sink(&self) -> Result<Inserter> {
        Ok(Inserter(self.queue.clone()))
    }

    async fn consumers(&self, count: usize, style: Style, tally: Arc<Tally>) -> Result<Workers> {
        *TALLY.lock().unwrap_or_else(PoisonError::into_inner) = Some(tally);
        let runtime = Builder::new_multi_thread().enable_all().build()?;
        let queue = runtime.spawn(connect(self.url.clone()));
        let place = Place(Some(runtime));
        let pool = AsyncWorkerPool::builder().queue(queue.await??).number_of_workers(u32::try_from(count)?);
        let sleep = match style {
            Style::Default | Style::Once => SleepParams::default(),
            Style::Best | Style::ByKey => {
                SleepParams { sleep_period: SLEEP, max_sleep_period: SLEEP, min_sleep_period: SLEEP, sleep_step: SLEEP }
            }
        };
        Ok(Workers { pool: pool.sleep_params(sleep).build(), place })
    }

    async fn start(Workers { mut pool, place }: Workers) -> Result<Place> {
        let runtime = place.0.as_ref().context("no runtime")?;
        runtime.spawn(async move { pool.start().await }).await?;
        Ok(place)
    }

    async fn stop(place: Place) -> Result<()> {
        drop(place);
        Ok(())
    }
}

impl Sink for Inserter {
    async fn put(&mut self, payloads: Vec<Vec<u8>>) -> Result<()> {
        for job in Job::parse_all(&payloads)? {
            self.0.insert_task(&Task { job }).await?;
        }
        Ok(())
    }
}
