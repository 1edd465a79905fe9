//! What waking consumers costs publishers: many that publish singly while consumers keep up, with notifications and without.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use pgqueue_core::Subscription;
use pgqueue_postgres::{Client, Options};

use super::{BARE, INSERT_BARE};
use crate::{
    drivers::Driver,
    harness::{Bare, Bench, Contender, Measurement, Ours, Sample, TOPIC, Tally, Target, consume, pour},
};

const CLIENTS: usize = 32;

/// An insert that notifies, as one would write it.
const INSERT_AND_NOTIFY: &str = "
    with inserted as (insert into bare (payload) select * from unnest($1::bytea[]))
    select pg_notify('bare', '')";

pub(crate) async fn run<D: Driver>(bench: &mut Bench) -> Result<()> {
    let size = bench.arguments.payload;
    let consumers = bench.arguments.consumers.unwrap_or(2);
    let ours = |who, ringing| {
        let contender = Contender::new(who, move |measurement| ours::<D>(measurement, size, consumers, ringing));
        contender.with("clients", CLIENTS).with("consumers", consumers)
    };
    let bare = |who, insert| {
        Contender::new(who, move |measurement| bare::<D>(measurement, size, insert)).with("clients", CLIENTS)
    };
    let contenders = [
        ours("pgqueue, polling", false),
        ours("pgqueue, ringing", true).against(0).hopes_for(Target::AtLeast(0.9)),
        bare("bare insert", INSERT_BARE),
        bare("bare insert + notify", INSERT_AND_NOTIFY).against(2),
    ];
    bench.compare("notify-cost", &contenders).await
}

async fn ours<D: Driver>(m: Measurement, size: usize, consumers: usize, ringing: bool) -> Result<Sample> {
    let queue = m.queue::<D>(CLIENTS + 3 * consumers).await?;
    let queue = queue.with_options(Options::new().with_ringing(ringing))?;
    let subscription = Subscription::new("notified", TOPIC);
    queue.insert_subscription(&subscription).await?;
    m.settle().await?;

    let tally = Arc::new(Tally::new(None));
    let prefetch = subscription.prefetch();
    let consumer = |_| tokio::spawn(consume(queue.clone(), subscription.clone(), prefetch, Arc::clone(&tally)));
    let tasks: Vec<_> = (0..consumers).map(consumer).collect();
    let sinks = (0..CLIENTS).map(|_| Ours(queue.clone())).collect();
    let poured = pour(&m, sinks, 1, size, m.duration).await?;
    let behind = queue.stats("notified").await?.waiting;
    tally.expect(poured.total);
    tally.complete().await;
    for task in tasks {
        task.await??;
    }
    tally.check()?;
    let most = poured.total / 2;
    ensure!(
        !ringing || behind < most.max(1000) as u64,
        "the consumers did not keep up: {behind} of {} waited",
        poured.total
    );
    Ok(poured.sample())
}

async fn bare<D: Driver>(m: Measurement, size: usize, insert: &'static str) -> Result<Sample> {
    m.sql(BARE).await?;
    m.settle().await?;
    let client = D::client(&m.url(), 1).await?;
    let listener = client.open_listener().await.ok().flatten();
    let mut listener = listener.context("this client cannot listen")?;
    ensure!(listener.listen("bare").await.is_ok(), "listening failed");
    let listening = tokio::spawn(async move { while listener.next().await.is_ok() {} });

    let peers = m.peers::<D>(CLIENTS).await?;
    let sinks = peers.into_iter().map(|peer| Bare { peer, insert }).collect();
    let poured = pour(&m, sinks, 1, size, m.duration).await?;
    listening.abort();
    m.check_table("bare", poured.total).await?;
    Ok(poured.sample())
}
