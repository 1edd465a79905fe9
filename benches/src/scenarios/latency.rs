//! From publishing to the handler of an idle consumer, at a steady rate that does not wait for anybody.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use futures::future::try_join_all;
use pgqueue_core::{NewMessage, PublisherExt, Subscription};
use tokio::time::{Instant, sleep_until};

use crate::{
    drivers::Driver,
    harness::{Bench, Contender, Measurement, Sample, TOPIC, Tally, Target, consume, payload},
};

/// How many messages are published in a second.
pub(crate) const RATE: u32 = 200;

/// From when to when.
#[derive(Clone, Copy)]
pub(crate) enum From {
    /// From the return of `publish`.
    Published,
    /// From when it was due to be published, so that a late publisher counts as well.
    Due,
}

pub(crate) async fn run<D: Driver>(bench: &mut Bench) -> Result<()> {
    let size = bench.arguments.payload;
    let contender = |who, from| Contender::new(who, move |m| measure::<D>(m, size, from)).with("rate", RATE);
    let contenders = [
        contender("pgqueue, from publish", From::Published).hopes_for(Target::P50(5.0)),
        contender("pgqueue, from due time", From::Due),
    ];
    bench.compare("latency", &contenders).await
}

pub(crate) async fn measure<D: Driver>(m: Measurement, size: usize, from: From) -> Result<Sample> {
    let queue = m.queue::<D>(0).await?;
    let subscription = Subscription::new("latency", TOPIC);
    queue.insert_subscription(&subscription).await?;
    m.settle().await?;
    let count = (m.duration.as_secs_f64() * f64::from(RATE)) as usize;
    let warm_up = RATE as usize / 4;
    let tally = Arc::new(Tally::new(Some(count + warm_up)));
    let prefetch = subscription.prefetch();
    let consumer = tokio::spawn(consume(queue.clone(), subscription, prefetch, Arc::clone(&tally)));

    let meter = m.meter().await?;
    // From when the consumer sleeps.
    let start = Instant::now() + Duration::from_millis(500);
    let publishing = (0..count + warm_up).map(|n| {
        let queue = queue.clone();
        let due = start + Duration::from_secs(1) * u32::try_from(n).unwrap_or(u32::MAX) / RATE;
        tokio::spawn(async move {
            sleep_until(due).await;
            queue.publish_one(TOPIC, NewMessage::new(payload(n, size))).await?;
            anyhow::Ok((due.into_std(), std::time::Instant::now()))
        })
    });
    let published = try_join_all(publishing.collect::<Vec<_>>()).await?.into_iter().collect::<Result<Vec<_>>>()?;
    tally.complete().await;
    let spent = meter.stop().await?;
    consumer.await??;
    let times = published.into_iter().zip(tally.check()?).skip(warm_up).map(|((due, published), arrived)| match from {
        // Whoever got it before its publisher heard that it is durable waited for nothing.
        From::Published => arrived.saturating_duration_since(published),
        From::Due => arrived.saturating_duration_since(due),
    });
    Ok(Sample::times(times).costing(count + warm_up, spent))
}
