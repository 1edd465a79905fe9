//! The scenarios, and what several of them need.

use std::time::Duration;

use anyhow::{Context, Result};
use pgqueue_bench::Measurement;
use tokio::time::{sleep, timeout};

use crate::peer::Peer;

pub(crate) mod drain;
pub(crate) mod end_to_end;
pub(crate) mod latency;
pub(crate) mod order;
pub(crate) mod publish;

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
