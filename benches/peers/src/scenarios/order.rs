//! Working off messages of few busy and many quiet keys, in order by key.

use std::{collections::HashMap, sync::Arc};

use anyhow::{Result, ensure};
use pgqueue_bench::{Bench, Contender, Measurement, Sample, Tally, keys, order, payload};

use super::answered;
use crate::{
    peer::{ByKey, Style},
    peers::{graphile::Graphile, pgmq::Pgmq, sqlxmq::Sqlxmq},
    selection::Selection,
};

const CONSUMERS: usize = 8;

/// How many messages are loaded at a time.
const LOAD: usize = 500;

/// Who is absent, and why.
const ABSENT: [(&str, &str); 3] = [
    ("apalis-postgres", "it has no order by key"),
    ("fang", "it has no order by key"),
    ("underway", "no more than one task of a key may wait"),
];

pub(crate) async fn run(bench: &mut Bench, only: &Selection) -> Result<()> {
    let (messages, size) = (bench.arguments.messages(20_000), bench.arguments.payload);
    let few = (messages / 10).max(1);
    let consumers = bench.arguments.consumers.unwrap_or(CONSUMERS);
    let go = |messages| Go { messages, size, consumers };
    let contenders = vec![
        order(messages, size, consumers),
        peer::<Graphile>("graphile_worker", go(few)).with("a queue", "each key"),
        peer::<Pgmq>("pgmq", go(few)).with("a group", "each key").with("read", 100),
        peer::<Sqlxmq>("sqlxmq", go(few)).with("ordered, a channel", "each key"),
    ];
    bench.compare("order", &only.of(contenders)).await?;
    for (who, reason) in ABSENT.into_iter().filter(|(who, _)| only.includes(who)) {
        bench.absent("order", who, reason)?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Go {
    messages: usize,
    size: usize,
    consumers: usize,
}

fn peer<P: ByKey>(who: &'static str, go: Go) -> Contender {
    let contender = Contender::new(who, move |m| measure::<P>(m, go));
    contender.with("consumers", go.consumers).with("messages", go.messages)
}

async fn measure<P: ByKey>(m: Measurement, go: Go) -> Result<Sample> {
    let messages = m.scaled(go.messages);
    let peer = P::set_up(&m).await?;
    let keys = keys(messages);
    for first in (0..messages).step_by(LOAD) {
        let last = messages.min(first + LOAD);
        peer.put_keyed((first..last).map(|n| (keys[n].as_str(), payload(n, go.size))).collect()).await?;
    }
    m.settle().await?;

    let tally = Arc::new(Tally::new(Some(messages)));
    let consumers = peer.consumers(go.consumers, Style::ByKey, Arc::clone(&tally)).await?;
    let meter = m.meter().await?;
    let working = P::start(consumers).await?;
    tally.complete().await;
    let arrived = tally.check()?;
    answered::<P>(&m).await?;
    let spent = meter.stop().await?;
    P::stop(working).await?;

    let mut latest = HashMap::new();
    let before = keys.iter().zip(arrived).filter(|(key, at)| latest.insert(*key, *at).is_some_and(|last| last > *at));
    let inversions = before.count();
    ensure!(inversions == 0, "{inversions} messages came before an earlier one of their key");
    Ok(Sample::metered(messages, spent))
}
