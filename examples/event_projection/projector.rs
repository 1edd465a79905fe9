//! [`Projector`]: one process that keeps the table.

use std::fmt;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use futures::StreamExt;
use pgqueue_core::{CheckpointStore, ErrorKind, Order, Start, Subscription, subscribe};
use pgqueue_sqlx::PgQueue;

use crate::table;

/// How many events one transaction takes, at most.
const BATCH: usize = 50;

/// Reads the topic behind its checkpoint, until it has seen all events.
#[derive(Clone, Args)]
pub(crate) struct Projector {
    /// The topic, and the schema of the table
    #[arg(long)]
    topic: String,

    /// Its own name: of the subscription, of the checkpoint, and of its part of the table
    #[arg(long)]
    pub(crate) name: String,

    /// How many events there are
    #[arg(long)]
    total: i64,

    /// When to die
    #[arg(long, requires = "at")]
    die: Option<Death>,

    /// After how many events to die
    #[arg(long)]
    at: Option<i64>,
}

/// When a projector dies.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Death {
    /// When the effects are written and not committed
    BeforeCommit,
    /// When they are committed and not acknowledged
    AfterCommit,
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BeforeCommit => "before a commit",
            Self::AfterCommit => "between a commit and its acknowledgement",
        })
    }
}

impl Projector {
    pub(crate) fn new(topic: &str, name: &str, total: i64) -> Self {
        Self { topic: topic.to_owned(), name: format!("{topic}_{name}"), total, die: None, at: None }
    }

    pub(crate) fn that_dies(self, death: Death, at: i64) -> Self {
        Self { die: Some(death), at: Some(at), ..self }
    }

    /// The arguments that make a process this projector.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let total = self.total.to_string();
        let mut arguments =
            ["projector", "--topic", &self.topic, "--name", &self.name, "--total", &total].map(str::to_owned).to_vec();
        if let (Some(death), Some(at)) = (self.die, self.at) {
            let death = match death {
                Death::BeforeCommit => "before-commit",
                Death::AfterCommit => "after-commit",
            };
            arguments.extend(["--die", death, "--at", &at.to_string()].map(str::to_owned));
        }
        arguments
    }

    pub(crate) async fn run(&self, url: &str) -> anyhow::Result<()> {
        let queue = PgQueue::connect(url).await?;
        let pool = table::connect(url, &self.topic).await?;

        // The checkpoint is what lasts. The subscription is made anew behind it, so that nobody waits for the lease of a projector
        // that died.
        let start = match queue.checkpoint(&self.name).await? {
            Some(checkpoint) => Start::After(checkpoint.position),
            None => Start::Beginning,
        };
        match queue.delete_subscription(&self.name).await {
            Err(error) if error.kind() != ErrorKind::NotFound => bail!(error),
            _ => {}
        }
        let subscription = Subscription::new(&self.name, &self.topic)
            .with_order(Order::StableTotal)
            .with_batch(BATCH)
            .with_start(start);
        let mut stream = subscribe(queue.subscription(subscription)).await?;

        let mut events = table::events(&pool, &self.name).await?;
        while events < self.total {
            let delivery = stream.next().await.context("the stream ended")??;
            let mut transaction = pool.begin().await?;
            for message in delivery.messages() {
                // Not if it counted before.
                if queue.advance_checkpoint_in(&mut transaction, &self.name, message.position()).await? {
                    table::count(&mut transaction, &self.name, &message.json()?).await?;
                    events += 1;
                }
            }
            self.die_if(Death::BeforeCommit, events);
            transaction.commit().await?;
            self.die_if(Death::AfterCommit, events);
            delivery.ok().await?;
        }
        drop(stream);
        queue.consumers_gone().await;
        Ok(())
    }

    /// As with `kill -9`.
    fn die_if(&self, death: Death, events: i64) {
        if self.die == Some(death) && self.at.is_some_and(|at| events >= at) {
            std::process::abort();
        }
    }
}
