//! The scenarios, and what several of them need.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use pgqueue_bench::{Contender, Measurement, Spent, Tally};
use tokio::time::{sleep, timeout};

use crate::peer::{Peer, Style};

pub(crate) mod drain;
pub(crate) mod end_to_end;
pub(crate) mod latency;
pub(crate) mod order;
pub(crate) mod publish;

/// How many messages are loaded at a time.
const LOAD: usize = 500;

/// How often to look whether what was handled is answered, and for how long.
const PAUSE: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(60);

/// Why fang is absent where there are several consumers.
const TWICE: &str = "its workers take a task by two statements that are no transaction, so several run the same one";

/// Waits until every answer is durable.
async fn answered<P: Peer>(m: &Measurement) -> Result<()> {
    let answered = async {
        while m.number(P::LEFT).await? > 0 {
            sleep(PAUSE).await;
        }
        Ok(())
    };
    timeout(PATIENCE, answered).await.context("what was handled is not answered")?
}

/// A backlog, and who works it off.
#[derive(Clone, Copy)]
struct Backlog {
    messages: usize,
    size: usize,
    consumers: usize,
    style: Style,
}

impl Backlog {
    fn at_best(self) -> Self {
        Self { style: Style::Best, ..self }
    }

    /// Says how large it is.
    fn describe(self, contender: Contender) -> Contender {
        contender.with("consumers", self.consumers).with("messages", self.messages)
    }

    /// Works so many messages off that are loaded, until every answer is durable. Returns what that took, and when each arrived.
    async fn work_off<P: Peer>(self, m: &Measurement, peer: &P, messages: usize) -> Result<(Spent, Vec<Instant>)> {
        m.settle().await?;
        let tally = Arc::new(Tally::new(Some(messages)));
        let consumers = peer.consumers(self.consumers, self.style, Arc::clone(&tally)).await?;
        let meter = m.meter().await?;
        let working = P::start(consumers).await?;
        tally.complete().await;
        let arrived = tally.check()?;
        answered::<P>(m).await?;
        let spent = meter.stop().await?;
        P::stop(working).await?;
        Ok((spent, arrived))
    }
}
