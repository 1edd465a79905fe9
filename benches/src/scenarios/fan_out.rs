//! What each further subscription costs a publisher, with nobody consuming.

use anyhow::Result;

use crate::{
    drivers::Driver,
    harness::{Bench, Contender, Measurement, Ours, Sample, Target, pour},
};

pub(crate) async fn run<D: Driver>(bench: &mut Bench) -> Result<()> {
    let (batch, size) = (bench.arguments.batch, bench.arguments.payload);
    let contender = |subscriptions: usize| {
        let contender =
            Contender::new("pgqueue", move |measurement| publish::<D>(measurement, batch, size, subscriptions));
        let contender = contender.with("batch", batch).with("subscriptions", subscriptions);
        match subscriptions {
            1 => contender,
            // Each further one costs less than 5 %.
            _ => contender.against(0).hopes_for(Target::AtLeast(1.0 / (1.0 + 0.05 * (subscriptions - 1) as f64))),
        }
    };
    let subscriptions = match bench.arguments.subscriptions {
        None => vec![1, 2, 4, 8],
        Some(0 | 1) => vec![1],
        Some(several) => vec![1, several],
    };
    bench.compare("fan-out", &subscriptions.into_iter().map(contender).collect::<Vec<_>>()).await
}

async fn publish<D: Driver>(
    measurement: Measurement,
    batch: usize,
    size: usize,
    subscriptions: usize,
) -> Result<Sample> {
    let queue = measurement.queue::<D>(1).await?;
    for n in 0..subscriptions {
        measurement.subscribe::<D>(&queue, &format!("subscription {n}")).await?;
    }
    measurement.settle().await?;
    let poured = pour(&measurement, vec![Ours(queue.clone())], batch, size, measurement.duration).await?;
    measurement.check_table("pgqueue.log", poured.total).await?;
    for n in 0..subscriptions {
        let stats = queue.stats(&format!("subscription {n}")).await?;
        anyhow::ensure!(stats.waiting > 0, "a subscription got nothing");
    }
    Ok(poured.sample())
}
