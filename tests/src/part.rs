//! [`Part`]: what a process of the harness is told to be.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use pgqueue_core::{Backoff, Error, Order, Start, Subscription};
use pgqueue_postgres::{Options, PgQueue};
use pgqueue_sqlx::Sqlx;
use pgqueue_tokio_postgres::TokioPostgres;
use serde::{Deserialize, Serialize};
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::{backend::Backend, consumer, log::Log, publisher};

/// The topic of every world.
pub(crate) const TOPIC: &str = "orders";

/// The subscription whose consumers are audited.
pub(crate) const SUBSCRIPTION: &str = "invoices";

/// How long a part waits before it tries again what failed because the server was away.
const BREATH: Duration = Duration::from_millis(50);

/// A PostgreSQL client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Backing {
    /// pgqueue-tokio-postgres.
    TokioPostgres,
    /// pgqueue-sqlx.
    Sqlx,
}

impl Backing {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::TokioPostgres => Self::Sqlx,
            Self::Sqlx => Self::TokioPostgres,
        }
    }
}

/// What all parts need.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) url: String,
    pub(crate) backing: Backing,
    /// Where it notes what it does.
    pub(crate) log: PathBuf,
    /// How long the server may take for a statement.
    pub(crate) time_limit: Duration,
    pub(crate) role: Role,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Role {
    Consumer(consumer::Conduct),
    Publisher(publisher::Conduct),
}

/// What a subscription is, as far as scenarios differ in it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Shape {
    pub(crate) by_key: bool,
    pub(crate) prefetch: usize,
    pub(crate) lease: Duration,
    pub(crate) max_attempts: u32,
}

impl Default for Shape {
    fn default() -> Self {
        Self { by_key: true, prefetch: 100, lease: Duration::from_secs(6), max_attempts: 10 }
    }
}

impl Shape {
    pub(crate) fn subscription(self) -> Subscription {
        Subscription::new(SUBSCRIPTION, TOPIC)
            .with_order(if self.by_key { Order::ByKey } else { Order::Unordered })
            .with_prefetch(self.prefetch)
            .with_lease(self.lease)
            .with_start(Start::Beginning)
            .with_backoff(Backoff::fixed(Duration::from_millis(50)).with_max_attempts(self.max_attempts))
    }
}

/// What a message holds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Payload {
    pub(crate) n: u64,
    /// Whoever gets it dies.
    pub(crate) poison: bool,
}

/// Runs a part of the harness, which `part` describes, until it is told to stop, or killed, or its standard input ends.
///
/// # Errors
/// If it cannot begin: for what is not such a description, or a log that cannot be written.
pub async fn run_part(part: &str) -> Result<()> {
    let part: Part = serde_json::from_str(part)?;
    // The harness is gone, in whatever way. A thread, so that nothing in the runtime can keep it.
    std::thread::spawn(|| {
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).ok();
        std::process::exit(1);
    });
    match part.backing {
        Backing::TokioPostgres => run::<TokioPostgres>(part).await,
        Backing::Sqlx => run::<Sqlx>(part).await,
    }
}

async fn run<C: Backend>(part: Part) -> Result<()> {
    let log = Log::open(&part.log)?;
    let said = File::create(said(&part.log))?;
    let ours = Targets::new().with_target("pgqueue", LevelFilter::DEBUG);
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(LevelFilter::DEBUG)
        .with_writer(said)
        .finish()
        .with(ours)
        .init();
    let options = Options::new().with_time_limit(part.time_limit);
    let connect = async || PgQueue::<C>::connect(&part.url).await?.with_options(options.clone());
    let queue = until_there(connect).await?;
    match part.role {
        Role::Consumer(conduct) => consumer::consume(&queue, conduct, log).await,
        Role::Publisher(conduct) => publisher::publish(&queue, &part.url, conduct, log).await,
    }
}

/// Where a part says what `tracing` is told, beside its log.
pub(crate) fn said(log: &Path) -> PathBuf {
    log.with_extension("said")
}

/// Tries until the server is there.
pub(crate) async fn until_there<T>(mut attempt: impl AsyncFnMut() -> Result<T, Error>) -> Result<T, Error> {
    loop {
        match attempt().await {
            Err(error) if error.is_transient() => tokio::time::sleep(BREATH).await,
            done => return done,
        }
    }
}

/// Resolves when this process is told to stop.
pub(crate) fn told_to_stop() -> Result<impl Future<Output = ()> + Send + 'static> {
    let mut signals = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    Ok(async move { signals.recv().await.unwrap_or_default() })
}
