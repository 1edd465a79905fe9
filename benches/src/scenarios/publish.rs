//! Publishing, in batches and singly, beside inserts into a table with nothing but payloads.

use anyhow::Result;
use pgqueue_postgres::Options;

use super::{BARE, INSERT_BARE};
use crate::{
    drivers::Driver,
    harness::{Bare, Bench, Contender, Keyed, Measurement, Ours, Sample, Target, pour},
};

/// How many publish singly at the same time.
const CLIENTS: [usize; 3] = [1, 8, 32];

pub(crate) async fn run<D: Driver>(bench: &mut Bench) -> Result<()> {
    let (batch, size) = (bench.arguments.batch, bench.arguments.payload);
    let ours = move |who, how, batch, clients| {
        Contender::new(who, move |measurement| ours::<D>(measurement, how, batch, size, clients))
            .with("batch", batch)
            .with("clients", clients)
    };
    let bare = move |batch, clients| {
        Contender::new("bare insert", move |measurement| bare::<D>(measurement, batch, size, clients))
            .with("batch", batch)
            .with("clients", clients)
    };
    let batches = [
        bare(batch, 1),
        ours("pgqueue", How::Plainly, batch, 1).against(0).hopes_for(Target::AtLeast(0.75)),
        ours("pgqueue, keys", How::WithKeys, batch, 1).against(0),
    ];
    bench.compare("publish", &batches).await?;
    for clients in CLIENTS {
        let singly = [
            bare(1, clients),
            ours("pgqueue", How::Plainly, 1, clients).against(0),
            ours("pgqueue, coalescing", How::Coalescing, 1, clients).against(0),
        ];
        bench.compare("publish", &singly).await?;
    }
    Ok(())
}

/// How the queue publishes.
#[derive(Clone, Copy)]
pub(crate) enum How {
    Plainly,
    /// Messages that have one of a thousand keys.
    WithKeys,
    /// Concurrent calls share a statement.
    Coalescing,
}

pub(crate) async fn ours<D: Driver>(
    measurement: Measurement,
    how: How,
    batch: usize,
    size: usize,
    clients: usize,
) -> Result<Sample> {
    let queue = measurement.queue::<D>(clients).await?;
    let queue = queue.with_options(Options::new().with_coalescing(matches!(how, How::Coalescing)))?;
    measurement.subscribe::<D>(&queue, "one").await?;
    measurement.settle().await?;
    let queues = (0..clients).map(|_| queue.clone());
    let poured = match how {
        How::WithKeys => pour(&measurement, queues.map(Keyed).collect(), batch, size, measurement.duration).await?,
        How::Plainly | How::Coalescing => {
            pour(&measurement, queues.map(Ours).collect(), batch, size, measurement.duration).await?
        }
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
