//! Publishing, in batches and singly, beside inserts into a table with nothing but payloads.

use anyhow::Result;

use super::{BARE, INSERT_BARE};
use crate::{
    drivers::Driver,
    harness::{Bare, Bench, Contender, Keyed, Measurement, Ours, Sample, Target, pour},
};

/// How many publish singly at the same time.
const CLIENTS: [usize; 3] = [1, 8, 32];

pub(crate) async fn run<D: Driver>(bench: &mut Bench) -> Result<()> {
    let (batch, size) = (bench.arguments.batch, bench.arguments.payload);
    let ours = move |batch, clients| {
        Contender::new("pgqueue", move |measurement| ours::<D>(measurement, batch, size, clients, false))
            .with("batch", batch)
            .with("clients", clients)
    };
    let bare = move |batch, clients| {
        Contender::new("bare insert", move |measurement| bare::<D>(measurement, batch, size, clients))
            .with("batch", batch)
            .with("clients", clients)
    };
    let keyed = Contender::new("pgqueue, keys", move |measurement| ours_keyed::<D>(measurement, batch, size));
    let batches = [
        bare(batch, 1),
        ours(batch, 1).against(0).hopes_for(Target::AtLeast(0.6)),
        keyed.with("batch", batch).with("clients", 1).against(0),
    ];
    bench.compare("publish", &batches).await?;
    for clients in CLIENTS {
        bench.compare("publish", &[bare(1, clients), ours(1, clients).against(0)]).await?;
    }
    Ok(())
}

async fn ours_keyed<D: Driver>(measurement: Measurement, batch: usize, size: usize) -> Result<Sample> {
    ours::<D>(measurement, batch, size, 1, true).await
}

pub(crate) async fn ours<D: Driver>(
    measurement: Measurement,
    batch: usize,
    size: usize,
    clients: usize,
    with_keys: bool,
) -> Result<Sample> {
    let queue = measurement.queue::<D>(clients).await?;
    measurement.subscribe::<D>(&queue, "one").await?;
    measurement.settle().await?;
    let queues = (0..clients).map(|_| queue.clone());
    let poured = match with_keys {
        true => pour(&measurement, queues.map(Keyed).collect(), batch, size, measurement.duration).await?,
        false => pour(&measurement, queues.map(Ours).collect(), batch, size, measurement.duration).await?,
    };
    measurement.check_table("pgqueue.log", poured.total).await?;
    Ok(poured.sample())
}

pub(crate) async fn bare<D: Driver>(
    measurement: Measurement,
    batch: usize,
    size: usize,
    clients: usize,
) -> Result<Sample> {
    measurement.sql(BARE).await?;
    measurement.settle().await?;
    let peers = measurement.peers::<D>(clients).await?;
    let sinks = peers.into_iter().map(|peer| Bare { peer, insert: INSERT_BARE }).collect();
    let poured = pour(&measurement, sinks, batch, size, measurement.duration).await?;
    measurement.check_table("bare", poured.total).await?;
    Ok(poured.sample())
}
