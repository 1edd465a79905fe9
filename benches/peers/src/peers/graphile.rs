//! graphile_worker, on tokio-postgres.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow};
use graphile_worker::{
    Database, IntoTaskHandlerResult, JobSpec, LocalQueueConfig, TaskHandler, Worker, WorkerContext, WorkerOptions,
    WorkerUtils, tokio_postgres::TokioPostgresDatabase,
};
use pgqueue_bench::{Measurement, Sink, Tally};
use tokio::task::JoinHandle;

use super::CONNECTIONS;
use crate::{
    job::Job,
    peer::{ByKey, Peer, Style},
};

const SCHEMA: &str = "graphile_worker";

/// How many jobs its best takes at a time, and for how long it collects what is completed.
const LOCAL_QUEUE: usize = 2000;
const COMPLETION_DELAY: Duration = Duration::from_millis(5);

pub(crate) struct Graphile {
    database: Database,
}

pub(crate) struct Adder(WorkerUtils);

#[derive(Clone, Debug)]
struct Arrivals(Arc<Tally>);

impl TaskHandler for Job {
    const IDENTIFIER: &'static str = "bench";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        let arrivals = context.get_ext::<Arrivals>().ok_or("nobody counts")?;
        arrivals.0.arrived(self.n);
        arrivals.0.settled(1);
        Ok::<(), String>(())
    }
}

impl Peer for Graphile {
    type Sink = Adder;
    type Ready = (Worker, Style);
    type Working = (Arc<Worker>, JoinHandle<Result<()>>);

    const LEFT: &'static str = "select count(*) from graphile_worker._private_jobs";

    async fn set_up(m: &Measurement) -> Result<Self> {
        let database = TokioPostgresDatabase::from_url(&m.url(), CONNECTIONS).map_err(|error| anyhow!("{error}"))?;
        let database = Database::from(database);
        WorkerUtils::new(database.clone(), SCHEMA).migrate().await.context("migration")?;
        Ok(Self { database })
    }

    async fn sink(&self) -> Result<Adder> {
        Ok(Adder(WorkerUtils::new(self.database.clone(), SCHEMA)))
    }

    async fn consumers(&self, count: usize, style: Style, tally: Arc<Tally>) -> Result<Self::Ready> {
        let options = WorkerOptions::default()
            .database(self.database.clone())
            .schema(SCHEMA)
            .concurrency(count)
            .listen_os_shutdown_signals(false)
            .add_extension(Arrivals(tally))
            .define_job::<Job>();
        let options = match style {
            Style::Default | Style::Once => options,
            Style::Best | Style::ByKey => options
                .local_queue(LocalQueueConfig::default().with_size(LOCAL_QUEUE))
                .complete_job_batch_delay(COMPLETION_DELAY),
        };
        Ok((options.init().await?, style))
    }

    async fn start((worker, style): Self::Ready) -> Result<Self::Working> {
        let worker = Arc::new(worker);
        let running = Arc::clone(&worker);
        let run = async move {
            match style {
                Style::Once => running.run_once().await?,
                Style::Default | Style::Best | Style::ByKey => running.run().await?,
            }
            Ok(())
        };
        Ok((worker, tokio::spawn(run)))
    }

    async fn stop((worker, running): Self::Working) -> Result<()> {
        worker.request_shutdown();
        running.await?
    }
}

impl Sink for Adder {
    async fn put(&mut self, payloads: Vec<Vec<u8>>) -> Result<()> {
        let spec = JobSpec::default();
        let mut jobs = Job::parse_all(&payloads)?;
        if jobs.len() == 1 {
            self.0.add_job(jobs.remove(0), spec).await?;
        } else {
            let jobs: Vec<_> = jobs.into_iter().map(|job| (job, &spec)).collect();
            self.0.add_jobs(&jobs).await?;
        }
        Ok(())
    }
}

impl ByKey for Graphile {
    async fn put_keyed(&self, messages: Vec<(&str, Vec<u8>)>) -> Result<()> {
        let specs = messages.iter().map(|(key, _)| JobSpec::builder().queue_name(*key).build()).collect::<Vec<_>>();
        let jobs = messages.iter().map(|(_, payload)| Job::parse(payload)).collect::<Result<Vec<_>>>()?;
        let jobs: Vec<_> = jobs.into_iter().zip(&specs).collect();
        WorkerUtils::new(self.database.clone(), SCHEMA).add_jobs(&jobs).await?;
        Ok(())
    }
}
