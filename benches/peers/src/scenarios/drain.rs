//! Working off a backlog, until every answer is durable.

use anyhow::Result;
use pgqueue_bench::{Bench, By, Contender, Measurement, Sample, Sink, drain, drain_by_hand, payload};

use super::{Backlog, LOAD, TWICE};
use crate::{
    peer::{Peer, Style},
    peers::{apalis::Apalis, fang::Fang, graphile::Graphile, pgmq::Pgmq, sqlxmq::Sqlxmq, underway::Underway},
    selection::Selection,
};

pub(crate) async fn run(bench: &mut Bench, only: &Selection) -> Result<()> {
    let (messages, size) = (bench.arguments.messages(20_000), bench.arguments.payload);
    // Of those that take a transaction a message or more, fewer are enough.
    let few = (messages / 10).max(1);
    let consumers = bench.arguments.consumers.map_or(vec![1, 16], |consumers| vec![consumers]);
    for consumers in consumers {
        let hands = |by, messages| drain_by_hand(by, messages, size, consumers);
        let go = |messages| Backlog { messages, size, consumers, style: Style::Default };
        let mut contenders = vec![
            drain(messages, size, consumers, 100),
            drain(messages, size, consumers, 1000),
            hands(By::Delete, messages),
            hands(By::Lease, messages),
            hands(By::One, few),
            // Otherwise it takes one job each time that it is told of a new one, or looks.
            peer::<Graphile>("graphile_worker", Backlog { style: Style::Once, ..go(few) }).with("run", "once"),
            peer::<Graphile>("graphile_worker", go(messages).at_best()).with("local queue", 2000),
            peer::<Pgmq>("pgmq", go(few)),
            peer::<Pgmq>("pgmq", go(messages).at_best()).with("read", 100),
            peer::<Underway>("underway", go(few)),
            peer::<Underway>("underway", go(few).at_best()).with("looks", "every 10 ms"),
            peer::<Apalis>("apalis-postgres", go(few)),
            peer::<Apalis>("apalis-postgres", go(messages).at_best()).with("buffer", 500),
            peer::<Sqlxmq>("sqlxmq", go(few)),
            peer::<Sqlxmq>("sqlxmq", go(few).at_best()).with("in hand", "100 to 200"),
        ];
        if consumers == 1 {
            contenders.push(peer::<Fang>("fang", go(few)));
        } else if only.includes("fang") {
            bench.absent("drain", "fang", TWICE)?;
        }
        bench.compare("drain", &only.of(contenders)).await?;
    }
    Ok(())
}

fn peer<P: Peer>(who: &'static str, backlog: Backlog) -> Contender {
    backlog.describe(Contender::new(who, move |m| measure::<P>(m, backlog)))
}

async fn measure<P: Peer>(m: Measurement, backlog: Backlog) -> Result<Sample> {
    let messages = m.scaled(backlog.messages);
    let peer = P::set_up(&m).await?;
    let mut sink = peer.sink().await?;
    for first in (0..messages).step_by(LOAD) {
        sink.put((first..messages.min(first + LOAD)).map(|n| payload(n, backlog.size)).collect()).await?;
    }
    drop(sink);
    let (spent, _) = backlog.work_off(&m, &peer, messages).await?;
    Ok(Sample::metered(messages, spent))
}
