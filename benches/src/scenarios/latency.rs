//! From publishing to the handler of an idle consumer, at a steady rate that does not wait for anybody.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::Result;
use futures::future::try_join_all;
use pgqueue_core::{Message, NewMessage, PublisherExt, Subscription};
use tokio::time::{Instant, sleep_until};

use crate::{
    drivers::Driver,
    harness::{Bench, Contender, Measurement, Queue, Sample, TOPIC, Tally, Target, consume_as, number, payload},
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
    /// From when the server took it in, by the server's clock, which is that of this machine.
    Stamped,
}

pub(crate) async fn run<D: Driver>(bench: &mut Bench) -> Result<()> {
    let size = bench.arguments.payload;
    let contender = |who, from| Contender::new(who, move |m| measure::<D>(m, size, from)).with("rate", RATE);
    let contenders = [
        contender("pgqueue, from publish", From::Published).hopes_for(Target::P50(5.0)),
        contender("pgqueue, from due time", From::Due),
        contender("pgqueue, from the server's stamp", From::Stamped),
    ];
    bench.compare("latency", &contenders).await
}

pub(crate) async fn measure<D: Driver>(m: Measurement, size: usize, from: From) -> Result<Sample> {
    let queue = m.queue::<D>(0).await?;
    measure_on(m, queue, size, from).await
}

pub(crate) async fn measure_on(m: Measurement, queue: impl Queue, size: usize, from: From) -> Result<Sample> {
    let subscription = Subscription::new("latency", TOPIC);
    queue.insert_subscription(&subscription).await?;
    m.settle().await?;
    let count = (m.duration.as_secs_f64() * f64::from(RATE)) as usize;
    let warm_up = RATE as usize / 4;
    let tally = Arc::new(Tally::new(Some(count + warm_up)));
    let prefetch = subscription.prefetch();
    let stamps = Arc::new(Mutex::new(vec![Duration::ZERO; count + warm_up]));
    let noting = Arc::clone(&stamps);
    let place = move |message: &Message| {
        let n = number(message.payload())?;
        let since = SystemTime::now().duration_since(message.published_at()).unwrap_or_default();
        noting.lock().unwrap_or_else(PoisonError::into_inner)[n] = since;
        Ok(n)
    };
    let consumer = tokio::spawn(consume_as(queue.clone(), subscription, prefetch, Arc::clone(&tally), place));

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
    let stamps = stamps.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let seen = published.into_iter().zip(tally.check()?).zip(stamps).skip(warm_up);
    let times = seen.map(|(((due, published), arrived), stamped)| match from {
        // Whoever got it before its publisher heard that it is durable waited for nothing.
        From::Published => arrived.saturating_duration_since(published),
        From::Due => arrived.saturating_duration_since(due),
        From::Stamped => stamped,
    });
    Ok(Sample::times(times).costing(count + warm_up, spent))
}
