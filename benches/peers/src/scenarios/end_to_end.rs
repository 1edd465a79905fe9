//! Publishing and consuming at the same time, where everything is for several: of who knows one consumer for a message only, each
//! message is published once for each of them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use anyhow::Result;
use futures::future::try_join_all;
use pgqueue_bench::{Bench, Contender, Measurement, Sample, Sink, Tally, WINDOW, end_to_end, keep_pace, payload};

use super::answered;
use crate::{
    peer::{Peer, Style},
    peers::{apalis::Apalis, graphile::Graphile, pgmq::Pgmq, sqlxmq::Sqlxmq, underway::Underway},
    selection::Selection,
};

/// For how many each message is, as the queue has subscriptions.
const SUBSCRIPTIONS: usize = 8;

/// How many publish, as for the queue.
const PUBLISHERS: usize = 2;

pub(crate) async fn run(bench: &mut Bench, only: &Selection) -> Result<()> {
    let (messages, batch, size) = (bench.arguments.messages(20_000), bench.arguments.batch, bench.arguments.payload);
    // Of those that take a transaction a message or more, fewer are enough.
    let few = (messages / 10).max(1);
    let go = |messages| Go { messages, batch, size };
    let contenders = vec![
        end_to_end(messages, batch, size, SUBSCRIPTIONS),
        peer::<Graphile>("graphile_worker", go(messages)).with("local queue", 2000),
        peer::<Pgmq>("pgmq", go(messages)).with("read", 100),
        peer::<Underway>("underway", go(few)).with("looks", "every 10 ms"),
        peer::<Apalis>("apalis-postgres", go(messages)).with("buffer", 500),
        peer::<Sqlxmq>("sqlxmq", go(few)).with("in hand", "100 to 200"),
    ];
    bench.compare("end-to-end", &only.of(contenders)).await?;
    if only.includes("fang") {
        bench.absent("end-to-end", "fang", super::TWICE)?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Go {
    messages: usize,
    batch: usize,
    size: usize,
}

fn peer<P: Peer>(who: &'static str, go: Go) -> Contender {
    Contender::new(who, move |m| measure::<P>(m, go))
        .with("batch", go.batch)
        .with("messages", go.messages)
        .with("subscriptions", SUBSCRIPTIONS)
}

async fn measure<P: Peer>(m: Measurement, go: Go) -> Result<Sample> {
    let messages = m.scaled(go.messages);
    let peer = P::set_up(&m).await?;
    let mut sinks = Vec::new();
    for _ in 0..PUBLISHERS {
        sinks.push(peer.sink().await?);
    }
    m.settle().await?;

    let copies = messages * SUBSCRIPTIONS;
    let tally = Arc::new(Tally::new(Some(copies)));
    let consumers = peer.consumers(SUBSCRIPTIONS, Style::Best, Arc::clone(&tally)).await?;
    let meter = m.meter().await?;
    let working = P::start(consumers).await?;
    let published = Arc::new(AtomicUsize::new(0));
    let publisher = |sink| tokio::spawn(publish(sink, copies, go, Arc::clone(&published), Arc::clone(&tally)));
    let publishers: Vec<_> = sinks.into_iter().map(publisher).collect();
    try_join_all(publishers).await?.into_iter().collect::<Result<Vec<_>>>()?;
    tally.complete().await;
    tally.check()?;
    answered::<P>(&m).await?;
    let spent = meter.stop().await?;
    P::stop(working).await?;
    Ok(Sample::metered(messages, spent))
}

/// Publishes batch after batch, and waits while that is too far ahead.
async fn publish(
    mut sink: impl Sink,
    copies: usize,
    go: Go,
    published: Arc<AtomicUsize>,
    tally: Arc<Tally>,
) -> Result<()> {
    // As many messages a transaction as for the queue, and so several times as many copies.
    let batch = go.batch * SUBSCRIPTIONS;
    loop {
        let first = published.fetch_add(batch, Ordering::Relaxed);
        if first >= copies {
            return Ok(());
        }
        keep_pace(first, WINDOW * SUBSCRIPTIONS, std::slice::from_ref(&tally)).await?;
        sink.put((first..copies.min(first + batch)).map(|n| payload(n, go.size)).collect()).await?;
    }
}
