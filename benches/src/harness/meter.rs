//! [`Meter`]: the clock of a measurement, and what the time was spent on.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use pgqueue_testserver::Server;

use super::{cpu::Cpu, peak};

/// For how long to wait until those who have left are gone, and how often to look.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(10);

/// Runs from when it is made.
#[derive(Debug)]
pub struct Meter {
    server: Arc<Server>,
    wal: u64,
    commits: u64,
    cpu: Option<Cpu>,
    start: Instant,
}

/// What a meter showed when it was stopped.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    pub(crate) elapsed: Duration,
    pub(super) wal_bytes: u64,
    /// How many commits the database had counted before.
    pub(super) commits_before: u64,
    pub(super) cpu: Option<Cpu>,
    /// How much memory this process had at most, in MiB.
    pub(super) peak: Option<f64>,
}

impl Meter {
    pub(super) async fn start(server: Arc<Server>, database: &str) -> Result<Self> {
        let (wal, commits, cpu) = (wal(&server).await?, commits(&server, database).await?, cpu(&server).await?);
        peak::forget();
        Ok(Self { server, wal, commits, cpu, start: Instant::now() })
    }

    /// Stops the clock, and says what was spent.
    ///
    /// # Errors
    ///
    /// When the server does not say what it has counted.
    pub async fn stop(self) -> Result<Spent> {
        let elapsed = self.start.elapsed();
        let cpu = cpu(&self.server).await?.zip(self.cpu).map(|(now, before)| now.since(before));
        let wal_bytes = wal(&self.server).await? - self.wal;
        Ok(Spent { elapsed, wal_bytes, commits_before: self.commits, cpu, peak: peak::read() })
    }
}

/// How many commits there were in a database, once everybody has left it: a session counts its own now and then, and when it ends.
pub(super) async fn commits_in_all(server: &Server, database: &str) -> Result<u64> {
    let since = Instant::now();
    let sessions = format!(
        "select count(*) from pg_stat_activity where datname = '{database}' and backend_type = 'client backend'"
    );
    while number(server, &sessions).await? > 0 && since.elapsed() < PATIENCE {
        tokio::time::sleep(PAUSE).await;
    }
    commits(server, database).await
}

async fn commits(server: &Server, database: &str) -> Result<u64> {
    number(server, &format!("select xact_commit from pg_stat_database where datname = '{database}'")).await
}

/// How many bytes of write-ahead log were ever written.
async fn wal(server: &Server) -> Result<u64> {
    number(server, "select pg_current_wal_insert_lsn() - '0/0'").await
}

async fn cpu(server: &Server) -> Result<Option<Cpu>> {
    Ok(server.pid().await?.and_then(Cpu::read))
}

async fn number(server: &Server, question: &str) -> Result<u64> {
    let answer = server.sql("postgres", question).await?;
    answer.trim().parse().with_context(|| format!("{answer:?} is no number"))
}
