//! Publishing and consuming at the same time, where everything is for several: of who knows one consumer for a message only, each
//! message is published once for each of them.

use std::sync::Arc;

use anyhow::Result;
use pgqueue_bench::{Bench, Contender, Measurement, Sample, Tally, WINDOW, end_to_end, pour_all};

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
    // As many messages a call as for the queue, and so several times as many copies.
    let (batch, window) = (go.batch * SUBSCRIPTIONS, WINDOW * SUBSCRIPTIONS);
    pour_all(sinks, copies, batch, go.size, window, std::slice::from_ref(&tally)).await?;
    tally.complete().await;
    tally.check()?;
    answered::<P>(&m).await?;
    let spent = meter.stop().await?;
    P::stop(working).await?;
    Ok(Sample::metered(messages, spent))
}
