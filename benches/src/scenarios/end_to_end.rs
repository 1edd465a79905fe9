//! Publishing and consuming at the same time, with one subscription and with several that all get everything.

use std::sync::Arc;

use anyhow::Result;
use futures::future::{join_all, try_join_all};
use pgqueue_core::Subscription;

use crate::{
    drivers::Driver,
    harness::{Bench, Contender, Measurement, Ours, Queue, Sample, TOPIC, Tally, Target, WINDOW, consume, pour_all},
};

const PUBLISHERS: usize = 2;

/// How many messages a consumer has in hand and handles at the same time.
const PREFETCH: usize = 1000;

pub(crate) async fn run<D: Driver>(bench: &mut Bench) -> Result<()> {
    let (messages, batch) = (bench.arguments.messages(100_000), bench.arguments.batch);
    let (size, consumers) = (bench.arguments.payload, bench.arguments.consumers.unwrap_or(1));
    let several = bench.arguments.subscriptions.unwrap_or(8);
    let contender = |subscriptions: usize| {
        let go = Go { messages, batch, size, subscriptions, consumers };
        Contender::new("pgqueue", move |m| measure::<D>(m, go))
            .with("batch", batch)
            .with("publishers", PUBLISHERS)
            .with("subscriptions", subscriptions)
            .with("consumers", consumers)
            .with("prefetch", PREFETCH)
    };
    let mut contenders = vec![contender(1)];
    if several > 1 {
        contenders.push(contender(several).against(0).hopes_for(Target::WalAtMost(1.3)));
    }
    bench.compare("end-to-end", &contenders).await
}

#[derive(Clone, Copy)]
pub(crate) struct Go {
    pub(crate) messages: usize,
    pub(crate) batch: usize,
    pub(crate) size: usize,
    pub(crate) subscriptions: usize,
    /// Of each subscription.
    pub(crate) consumers: usize,
}

pub(crate) async fn measure<D: Driver>(m: Measurement, go: Go) -> Result<Sample> {
    let queue = m.queue::<D>(PUBLISHERS + 3 * go.subscriptions * go.consumers).await?;
    measure_on(m, queue, go).await
}

pub(crate) async fn measure_on(m: Measurement, queue: impl Queue, go: Go) -> Result<Sample> {
    let messages = m.scaled(go.messages);
    let names = (0..go.subscriptions).map(|n| format!("subscription {n}"));
    let subscriptions = names.map(|name| Subscription::new(name, TOPIC).with_prefetch(PREFETCH)).collect::<Vec<_>>();
    for subscription in &subscriptions {
        queue.insert_subscription(subscription).await?;
    }
    m.settle().await?;

    let tallies: Vec<_> = subscriptions.iter().map(|_| Arc::new(Tally::new(Some(messages)))).collect();
    let meter = m.meter().await?;
    let mut consumers = Vec::new();
    for (subscription, tally) in subscriptions.iter().zip(&tallies) {
        consumers.extend(
            (0..go.consumers)
                .map(|_| tokio::spawn(consume(queue.clone(), subscription.clone(), PREFETCH, Arc::clone(tally)))),
        );
    }
    let sinks = (0..PUBLISHERS).map(|_| Ours(queue.clone())).collect();
    pour_all(sinks, messages, go.batch, go.size, WINDOW, &tallies).await?;
    join_all(tallies.iter().map(|tally| tally.complete())).await;
    let spent = meter.stop().await?;
    try_join_all(consumers).await?.into_iter().collect::<Result<Vec<_>>>()?;
    for tally in tallies {
        tally.check()?;
    }
    Ok(Sample::metered(messages, spent))
}
