//! Consuming through the queue.

use std::sync::Arc;

use anyhow::Result;
use futures::TryStreamExt;
use pgqueue_core::{Subscription, subscribe};
use pgqueue_postgres::{Client, PgQueue};

use super::{Tally, number};

/// Consumes until the tally is complete, and answers each delivery by itself; `concurrency` handlers run at a time.
pub(crate) async fn consume<C: Client>(
    queue: PgQueue<C>,
    subscription: Subscription,
    concurrency: usize,
    tally: Arc<Tally>,
) -> Result<()> {
    let stream = subscribe(queue.subscription(subscription)).await?;
    let complete = Arc::clone(&tally);
    let stream = stream.until(async move { complete.complete().await }).map_err(anyhow::Error::from);
    let handle = async |delivery: pgqueue_core::Delivery| {
        tally.arrived(number(delivery.message().payload())?);
        delivery.ok().await?;
        tally.settled(1);
        Ok(())
    };
    Box::pin(stream).try_for_each_concurrent(concurrency, handle).await
}
