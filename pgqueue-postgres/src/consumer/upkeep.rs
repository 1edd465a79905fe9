//! The task that keeps house: every consumer does its share of the queue's chores.

use std::{sync::Arc, time::Duration};

use pgqueue_core::Result;
use tokio::time::Instant;

use super::Consumer;
use crate::{Client, statement, value::RowExt};

/// How long a round takes, at most; of a shorter lease, a third.
const ROUND: Duration = Duration::from_secs(1);

/// Every how many rounds the slower chores are done.
const TRIM: u32 = 2;
const SWEEP: u32 = 30;

/// Runs until the consumer ends.
pub(crate) async fn run<C: Client>(consumer: Arc<Consumer<C>>) {
    // Consumers that start together do not all clean up together.
    let mut next = Instant::now() + ROUND.mul_f64(fastrand::f64());
    let mut round = fastrand::u32(..);
    loop {
        consumer.sleep_until(next).await;
        if !consumer.lives() {
            return;
        }
        round = round.wrapping_add(1);
        if let Err(error) = keep_house(&consumer, round).await {
            tracing::debug!(%error, "a chore failed and will be tried again");
        }
        next = Instant::now() + ROUND.min(consumer.lease() / 3);
    }
}

/// How many batches are deleted in one round, at most, and how many messages a full one has.
const BATCHES: usize = 20;
const FULL_BATCH: i32 = 5000;

/// Deletes what every subscription has passed, batch by batch.
async fn trim<C: Client>(consumer: &Consumer<C>) -> Result<()> {
    for _ in 0..BATCHES {
        let rows = consumer.query(statement::TRIM, &[]).await?;
        if rows.first().map_or(Ok(0), |row| row.get::<i32>(0))? < FULL_BATCH {
            break;
        }
    }
    Ok(())
}

/// Does the chores, each a call of its own.
async fn keep_house<C: Client>(consumer: &Consumer<C>, round: u32) -> Result<()> {
    consumer.query(statement::BURY_OWNERS, &[]).await?;
    consumer.query(statement::PUBLISH_SCHEDULED, &[]).await?;
    if round.is_multiple_of(TRIM) {
        consumer.query(statement::KEEP_STUCK, &[]).await?;
        trim(consumer).await?;
    }
    if round.is_multiple_of(SWEEP) {
        consumer.query(statement::SWEEP, &[]).await?;
    }
    Ok(())
}
