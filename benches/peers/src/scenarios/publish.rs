//! Publishing, in batches and one by one.

use anyhow::{Result, ensure};
use pgqueue_bench::{Bench, Contender, Measurement, Sample, pour, publish, publish_bare, publish_coalescing};

use crate::{
    peer::Peer,
    peers::{apalis::Apalis, fang::Fang, graphile::Graphile, pgmq::Pgmq, sqlxmq::Sqlxmq, underway::Underway},
    selection::Selection,
};

/// How many publish at the same time.
const CLIENTS: [usize; 2] = [1, 16];

/// Why some are absent.
const ONE_BY_ONE: &str = "it publishes one message a call";

pub(crate) async fn run(bench: &mut Bench, only: &Selection) -> Result<()> {
    let (batch, size) = (bench.arguments.batch, bench.arguments.payload);
    for clients in CLIENTS {
        let contenders = vec![
            publish(batch, size, clients),
            publish_bare(batch, size, clients),
            peer::<Graphile>("graphile_worker", batch, size, clients),
            peer::<Pgmq>("pgmq", batch, size, clients),
            peer::<Underway>("underway", batch, size, clients),
            peer::<Apalis>("apalis-postgres", batch, size, clients),
        ];
        bench.compare("publish", &only.of(contenders)).await?;
    }
    for who in ["sqlxmq", "fang"].into_iter().filter(|who| only.includes(who)) {
        bench.absent("publish", who, ONE_BY_ONE)?;
    }
    for clients in CLIENTS {
        let contenders = vec![
            publish_coalescing(1, size, clients),
            publish(1, size, clients),
            publish_bare(1, size, clients),
            peer::<Graphile>("graphile_worker", 1, size, clients),
            peer::<Pgmq>("pgmq", 1, size, clients),
            peer::<Underway>("underway", 1, size, clients),
            peer::<Apalis>("apalis-postgres", 1, size, clients),
            peer::<Sqlxmq>("sqlxmq", 1, size, clients),
            peer::<Fang>("fang", 1, size, clients),
        ];
        bench.compare("publish", &only.of(contenders)).await?;
    }
    Ok(())
}

fn peer<P: Peer>(who: &'static str, batch: usize, size: usize, clients: usize) -> Contender {
    let contender = Contender::new(who, move |m| measure::<P>(m, batch, size, clients));
    contender.with("batch", batch).with("clients", clients)
}

async fn measure<P: Peer>(m: Measurement, batch: usize, size: usize, clients: usize) -> Result<Sample> {
    let peer = P::set_up(&m).await?;
    let mut sinks = Vec::new();
    for _ in 0..clients {
        sinks.push(peer.sink().await?);
    }
    m.settle().await?;
    let poured = pour(&m, sinks, batch, size, m.duration).await?;
    let kept = m.number(P::LEFT).await?;
    ensure!(kept == poured.total, "{} were published, and {kept} are there", poured.total);
    Ok(poured.sample())
}
