//! Working through a log that is kept, from its beginning, beside reading the same rows.

use anyhow::{Result, ensure};
use pgqueue_core::{NewMessage, Order, Start, Subscription};

use crate::{
    drivers::{Argument, Driver, Peer},
    harness::{Bench, Contender, Measurement, Sample, TOPIC, Tally, Target, number, payload, work_off},
};

/// How many messages are read, claimed or answered at a time.
const PAGE: usize = 1000;

/// What a claim returns of a message.
const RANGE: &str = "
    select id, payload, scheduled, published_at, key, kind, tags, headers::text
    from pgqueue.log where topic = $1 and id > $2 order by id limit 1000";

const TOPICS: &str = "select id, payload from pgqueue.topic, (select ''::bytea as payload) nothing";

pub(crate) async fn run<D: Driver>(bench: &mut Bench) -> Result<()> {
    let (messages, size) = (bench.arguments.messages(1_000_000), bench.arguments.payload);
    let ours = |subscription: Subscription| {
        let (order, batch) = (format!("{:?}", subscription.order()), subscription.batch());
        Contender::new("pgqueue", move |m| ours::<D>(m, subscription.clone(), messages))
            .with("order", order)
            .with("batch", batch)
            .with("prefetch", PAGE)
            .against(0)
    };
    let subscription = Subscription::new("catch-up", TOPIC).with_start(Start::Beginning).with_prefetch(PAGE);
    let batches = subscription.clone().with_batch(PAGE);
    let contenders = [
        Contender::new("select of 1,000 rows", move |m| select::<D>(m, messages)),
        ours(subscription).hopes_for(Target::AtLeast(0.4)),
        ours(batches.clone()),
        ours(batches.with_order(Order::StableTotal)),
    ];
    let stock = async |m: Measurement| m.stock::<D>(TOPIC, messages, |n| NewMessage::new(payload(n, size))).await;
    bench.compare_stocked("catch-up", stock, &contenders).await
}

async fn select<D: Driver>(m: Measurement, messages: usize) -> Result<Sample> {
    m.settle().await?;
    let mut peer = m.peer::<D>().await?;
    let topics = peer.rows(TOPICS, &[]).await?;
    let [(topic, _)] = topics.as_slice() else { anyhow::bail!("{} topics instead of one", topics.len()) };
    let tally = Tally::new(Some(messages));
    let meter = m.meter().await?;
    let mut after = 0;
    loop {
        let rows = peer.rows(RANGE, &[Argument::Number(*topic), Argument::Number(after)]).await?;
        let Some((last, _)) = rows.last() else { break };
        after = *last;
        for (_, payload) in &rows {
            tally.arrived(number(payload)?);
        }
        tally.settled(rows.len());
    }
    let spent = meter.stop().await?;
    tally.check()?;
    Ok(Sample::metered(messages, spent))
}

async fn ours<D: Driver>(m: Measurement, subscription: Subscription, messages: usize) -> Result<Sample> {
    let queue = m.stocked_queue::<D>(0).await?;
    queue.insert_subscription(&subscription).await?;
    m.settle().await?;
    let tally = Tally::new(Some(messages));
    let spent = work_off(&m, &queue, &subscription, 1, PAGE, tally, |message| number(message.payload())).await?;
    let kept = m.number("select count(*) from pgqueue.log").await?;
    ensure!(kept == messages, "{kept} messages are kept of {messages}");
    Ok(Sample::metered(messages, spent))
}
