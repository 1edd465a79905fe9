//! From when a message is due to be published to the handler of an idle consumer, at a steady rate that waits for nobody.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use pgqueue_bench::{Bench, Contender, Measurement, Sample, Sink, Tally, latency, payload};
use tokio::time::{Instant, sleep_until};

use crate::{
    peer::{Peer, Style},
    peers::{
        apalis::Apalis, by_hand::ByHand, fang::Fang, graphile::Graphile, pgmq::Pgmq, sqlxmq::Sqlxmq, underway::Underway,
    },
    selection::Selection,
};

/// How many messages are published in a second, and by how many in turn.
const RATE: u32 = 200;
const PUBLISHERS: usize = 8;

/// How many handle messages at the same time.
const CONSUMERS: usize = 4;

pub(crate) async fn run(bench: &mut Bench, only: &Selection) -> Result<()> {
    let size = bench.arguments.payload;
    let contenders = vec![
        latency(size),
        peer::<ByHand>("by hand, listening", size, Style::Default, CONSUMERS),
        peer::<Graphile>("graphile_worker", size, Style::Default, CONSUMERS),
        peer::<Pgmq>("pgmq", size, Style::Default, CONSUMERS).with("pause", "100 ms"),
        peer::<Pgmq>("pgmq", size, Style::Best, CONSUMERS).with("pause", "10 ms"),
        peer::<Underway>("underway", size, Style::Default, CONSUMERS),
        peer::<Apalis>("apalis-postgres", size, Style::Default, CONSUMERS),
        peer::<Sqlxmq>("sqlxmq", size, Style::Default, CONSUMERS),
        // Of several, more than one would run the same task.
        peer::<Fang>("fang", size, Style::Best, 1).with("sleep", "10 ms"),
    ];
    bench.compare("latency", &only.of(contenders)).await
}

fn peer<P: Peer>(who: &'static str, size: usize, style: Style, consumers: usize) -> Contender {
    Contender::new(who, move |m| measure::<P>(m, size, style, consumers))
        .with("consumers", consumers)
        .with("rate", RATE)
}

async fn measure<P: Peer>(m: Measurement, size: usize, style: Style, consumers: usize) -> Result<Sample> {
    let peer = P::set_up(&m).await?;
    m.settle().await?;
    let warm_up = RATE as usize / 4;
    let count = (m.duration.as_secs_f64() * f64::from(RATE)) as usize + warm_up;
    let tally = Arc::new(Tally::new(Some(count)));
    let working = P::start(peer.consumers(consumers, style, Arc::clone(&tally)).await?).await?;
    let meter = m.meter().await?;

    // From when the consumer sleeps.
    let start = Instant::now() + Duration::from_millis(500);
    let due = move |n: usize| start + Duration::from_secs(1) * u32::try_from(n).unwrap_or(u32::MAX) / RATE;
    let mut publishers = Vec::new();
    for first in 0..PUBLISHERS {
        let mut sink = peer.sink().await?;
        publishers.push(tokio::spawn(async move {
            for n in (first..count).step_by(PUBLISHERS) {
                sleep_until(due(n)).await;
                sink.put(vec![payload(n, size)]).await?;
            }
            anyhow::Ok(())
        }));
    }
    for publisher in publishers {
        publisher.await??;
    }
    tally.complete().await;
    let spent = meter.stop().await?;
    P::stop(working).await?;
    let times = tally.check()?.into_iter().enumerate().skip(warm_up);
    let times = times.map(|(n, arrived)| arrived.saturating_duration_since(due(n).into_std()));
    Ok(Sample::times(times).costing(count, spent))
}
