//! The scenarios that the queue in memory can be measured by: what publishing and consuming cost without any server.

use anyhow::{Result, bail};
use pgqueue_core::{Message, NewMessage, Order, Subscription, Topic};
use pgqueue_memory::MemoryQueue;

use super::{end_to_end, latency, order};
use crate::{
    arguments::Scenario,
    harness::{Bench, Contender, Measurement, Ours, Sample, TOPIC, Tally, load, number, payload, pour, work_off},
};

const WHO: &str = "pgqueue, in memory";

const SCENARIOS: [Scenario; 5] =
    [Scenario::Publish, Scenario::Drain, Scenario::EndToEnd, Scenario::Latency, Scenario::Order];

pub(crate) async fn run(bench: &mut Bench, scenario: Scenario) -> Result<()> {
    let arguments = bench.arguments.clone();
    let (batch, size) = (arguments.batch, arguments.payload);
    match scenario {
        Scenario::Publish => {
            let contender = |batch| Contender::new(WHO, move |m| publish(m, batch, size)).with("batch", batch);
            bench.compare("publish", &[contender(batch), contender(1)]).await
        }
        Scenario::Drain => {
            let (messages, consumers) = (arguments.messages(200_000), arguments.consumers.unwrap_or(1));
            let contender = |prefetch: usize| {
                Contender::new(WHO, move |m| drain(m, messages, size, consumers, prefetch))
                    .with("consumers", consumers)
                    .with("prefetch", prefetch)
            };
            bench.compare("drain", &[contender(100), contender(1000)]).await
        }
        Scenario::EndToEnd => {
            let (messages, consumers) = (arguments.messages(100_000), arguments.consumers.unwrap_or(1));
            let contender = |subscriptions: usize| {
                let go = end_to_end::Go { messages, batch, size, subscriptions, consumers };
                Contender::new(WHO, move |m| async move { end_to_end::measure_on(m, queue().await?, go).await })
                    .with("subscriptions", subscriptions)
            };
            bench.compare("end-to-end", &[contender(1), contender(arguments.subscriptions.unwrap_or(8))]).await
        }
        Scenario::Latency => {
            let due = Contender::new(WHO, move |m| async move {
                latency::measure_on(m, queue().await?, size, latency::From::Due).await
            });
            bench.compare("latency", &[due.with("rate", latency::RATE)]).await
        }
        Scenario::Order => {
            let (messages, consumers) = (arguments.messages(100_000), arguments.consumers.unwrap_or(order::CONSUMERS));
            let contender = |who, order| {
                let go = order::Go { order, messages, size, consumers, batch: 1 };
                Contender::new(who, move |m| async move {
                    let queue = queue().await?;
                    order::measure_on(m, queue.clone(), queue, go).await
                })
                .with("consumers", consumers)
            };
            let unordered = contender("pgqueue, in memory, unordered", Order::Unordered);
            bench.compare("order", &[unordered, contender("pgqueue, in memory, by key", Order::ByKey).against(0)]).await
        }
        Scenario::All => {
            for one in SCENARIOS {
                Box::pin(run(bench, one)).await?;
            }
            Ok(())
        }
        other => bail!("{other:?} is about PostgreSQL; of the queue in memory there are {SCENARIOS:?}"),
    }
}

/// A queue with the topic.
async fn queue() -> Result<MemoryQueue> {
    let queue = MemoryQueue::new();
    queue.create_topic(Topic::new(TOPIC)).await?;
    Ok(queue)
}

async fn publish(m: Measurement, batch: usize, size: usize) -> Result<Sample> {
    let queue = queue().await?;
    queue.insert_subscription(&Subscription::new("one", TOPIC)).await?;
    Ok(pour(&m, vec![Ours(queue)], batch, size, m.duration).await?.sample())
}

async fn drain(m: Measurement, messages: usize, size: usize, consumers: usize, prefetch: usize) -> Result<Sample> {
    let messages = m.scaled(messages);
    let queue = queue().await?;
    let subscription = Subscription::new("drain", TOPIC).with_prefetch(prefetch);
    queue.insert_subscription(&subscription).await?;
    load(&queue, TOPIC, messages, |n| NewMessage::new(payload(n, size))).await?;
    let tally = Tally::new(Some(messages));
    let place = |message: &Message| number(message.payload());
    let spent = work_off(&m, &queue, &subscription, consumers, prefetch, tally, place).await?;
    Ok(Sample::metered(messages, spent))
}
