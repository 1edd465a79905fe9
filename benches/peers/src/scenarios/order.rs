//! Working off messages of few busy and many quiet keys, in order by key.

use std::collections::HashMap;

use anyhow::{Result, ensure};
use pgqueue_bench::{Bench, Contender, Measurement, Sample, keys, order, payload};

use super::{Backlog, LOAD};
use crate::{
    peer::{ByKey, Style},
    peers::{graphile::Graphile, pgmq::Pgmq, sqlxmq::Sqlxmq},
    selection::Selection,
};

const CONSUMERS: usize = 8;

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
    let go = |messages| Backlog { messages, size, consumers, style: Style::ByKey };
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

fn peer<P: ByKey>(who: &'static str, backlog: Backlog) -> Contender {
    backlog.describe(Contender::new(who, move |m| measure::<P>(m, backlog)))
}

async fn measure<P: ByKey>(m: Measurement, backlog: Backlog) -> Result<Sample> {
    let messages = m.scaled(backlog.messages);
    let peer = P::set_up(&m).await?;
    let keys = keys(messages);
    for first in (0..messages).step_by(LOAD) {
        let last = messages.min(first + LOAD);
        peer.put_keyed((first..last).map(|n| (keys[n].as_str(), payload(n, backlog.size))).collect()).await?;
    }
    let (spent, arrived) = backlog.work_off(&m, &peer, messages).await?;

    let mut latest = HashMap::new();
    let before = keys.iter().zip(arrived).filter(|(key, at)| latest.insert(*key, *at).is_some_and(|last| last > *at));
    let inversions = before.count();
    ensure!(inversions == 0, "{inversions} messages came before an earlier one of their key");
    Ok(Sample::metered(messages, spent))
}
