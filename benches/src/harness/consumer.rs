//! Consuming through the queue.

use std::sync::Arc;

use anyhow::{Result, ensure};
use futures::TryStreamExt;
use pgqueue_core::{Delivery, Message, Publisher, Subscription, SubscriptionStore, subscribe};

use super::{Measurement, Spent, Tally, number};

/// A queue, whatever it keeps its messages in.
pub(crate) trait Queue: SubscriptionStore + Publisher + Clone {}

impl<Q: SubscriptionStore + Publisher + Clone> Queue for Q {}

/// Consumes until the tally is complete, and answers each delivery by itself; `concurrency` handlers run at a time.
pub(crate) async fn consume<Q: Queue>(
    queue: Q,
    subscription: Subscription,
    concurrency: usize,
    tally: Arc<Tally>,
) -> Result<()> {
    consume_as(queue, subscription, concurrency, tally, |message| number(message.payload())).await
}

/// Works off with so many consumers what a subscription gets, until nothing is left, and returns what that took. `place` tells the
/// place of a message in the tally.
pub(crate) async fn work_off<Q: Queue>(
    m: &Measurement,
    queue: &Q,
    subscription: &Subscription,
    consumers: usize,
    concurrency: usize,
    tally: Tally,
    place: impl Fn(&Message) -> Result<usize> + Clone + Send + Sync + 'static,
) -> Result<Spent> {
    let tally = Arc::new(tally);
    let meter = m.meter().await?;
    let consumer = |_| {
        let (queue, subscription, tally, place) =
            (queue.clone(), subscription.clone(), Arc::clone(&tally), place.clone());
        tokio::spawn(consume_as(queue, subscription, concurrency, tally, place))
    };
    let tasks: Vec<_> = (0..consumers).map(consumer).collect();
    tally.complete().await;
    let spent = meter.stop().await?;
    for task in tasks {
        task.await??;
    }
    tally.check()?;
    let stats = queue.stats(subscription.name()).await?;
    ensure!(stats.waiting == 0 && stats.in_flight == 0 && stats.retrying == 0, "something is left: {stats:?}");
    Ok(spent)
}

/// As [`consume`], of messages whose place in the tally `place` tells.
pub(crate) async fn consume_as<Q: Queue>(
    queue: Q,
    subscription: Subscription,
    concurrency: usize,
    tally: Arc<Tally>,
    place: impl Fn(&Message) -> Result<usize> + Send + Sync,
) -> Result<()> {
    let stream = subscribe(queue.consumer(subscription)).await?;
    let complete = Arc::clone(&tally);
    let stream = stream.until(async move { complete.complete().await }).map_err(anyhow::Error::from);
    let handle = async |delivery: Delivery| {
        let messages = delivery.messages();
        let count = messages.len();
        for message in messages {
            tally.arrived(place(message)?);
        }
        delivery.ok().await?;
        tally.settled(count);
        Ok(())
    };
    Box::pin(stream).try_for_each_concurrent(concurrency, handle).await
}
