//! What one claim takes, whatever waits, and after a pause in which much was published elsewhere.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pgqueue_core::{Subscription, Topic};

use crate::{
    drivers::{Argument, Driver, Peer},
    harness::{Bench, Contender, Measurement, Sample, TOPIC, Target},
};

/// How many messages a claim takes.
const MOST: usize = 100;

const CLAIM: &str = "
    select id, payload
    from pgqueue.claim($1, '00000000-0000-0000-0000-000000000001', gen_random_uuid(), 100, false, true, 0, false)
    where lease is not null";

/// Answers all that was claimed.
const SETTLE: &str = "
    select count(*), ''::bytea
    from (select array_agg(id) as ids, array_agg(token) as tokens from pgqueue.lease where owner is not null) l,
         pgqueue.settle($1, l.ids, l.tokens, '{}', '{}', '{}', '{}', '{}', '{}', '{}')";

const SMALL: usize = 1000;

/// How many claims there are between two fillings.
const CLAIMS: usize = 5;

pub(crate) async fn run<D: Driver>(bench: &mut Bench) -> Result<()> {
    let (large, size) = (bench.arguments.messages(1_000_000), bench.arguments.payload);
    let goes = if bench.arguments.quick { 4 } else { 40 };
    let claims =
        |backlog| Contender::new("claim", move |m| claims::<D>(m, backlog, size, goes)).with("backlog", backlog);
    let pause = Contender::new("first claim after a pause", move |m| after_pause::<D>(m, large, size));
    let contenders = [
        claims(SMALL),
        claims(large).against(0).hopes_for(Target::AtMost(1.2)),
        pause.with("published elsewhere", large).hopes_for(Target::P50(20.0)),
    ];
    bench.compare("backlog", &contenders).await
}

async fn claims<D: Driver>(m: Measurement, backlog: usize, size: usize, goes: usize) -> Result<Sample> {
    let backlog = if backlog == SMALL { backlog } else { m.scaled(backlog).max(SMALL) };
    let queue = m.queue::<D>(0).await?;
    queue.insert_subscription(&Subscription::new("claims", TOPIC)).await?;
    m.load::<D>(&queue, TOPIC, backlog, size).await?;
    m.settle().await?;
    let mut peer = m.peer::<D>().await?;
    let subscription = subscription(&mut peer).await?;
    let mut times = Vec::new();
    for go in 0..m.scaled(goes) + 1 {
        for _ in 0..CLAIMS {
            let time = claim(&mut peer, subscription).await?;
            times.extend((go > 0).then_some(time)); // the first are the warm-up
        }
        peer.rows(SETTLE, &[Argument::Number(subscription)]).await?;
        m.load::<D>(&queue, TOPIC, CLAIMS * MOST, size).await?;
    }
    Ok(Sample::times(times))
}

async fn after_pause<D: Driver>(m: Measurement, elsewhere: usize, size: usize) -> Result<Sample> {
    let queue = m.queue::<D>(0).await?;
    queue.create_topic(Topic::new("elsewhere")).await?;
    queue.insert_subscription(&Subscription::new("claims", TOPIC)).await?;
    let mut peer = m.peer::<D>().await?;
    let subscription = subscription(&mut peer).await?;
    m.load::<D>(&queue, TOPIC, CLAIMS * MOST, size).await?;
    for _ in 0..CLAIMS {
        claim(&mut peer, subscription).await?;
    }
    peer.rows(SETTLE, &[Argument::Number(subscription)]).await?;
    m.load::<D>(&queue, "elsewhere", m.scaled(elsewhere), size).await?;
    m.load::<D>(&queue, TOPIC, MOST, size).await?;
    Ok(Sample::times([claim(&mut peer, subscription).await?]))
}

async fn subscription(peer: &mut impl Peer) -> Result<i64> {
    let rows = peer.rows("select id, ''::bytea from pgqueue.subscription where name = 'claims'", &[]).await?;
    rows.first().map(|(id, _)| *id).ok_or_else(|| anyhow::anyhow!("there is no subscription"))
}

async fn claim(peer: &mut impl Peer, subscription: i64) -> Result<Duration> {
    let began = Instant::now();
    let claimed = peer.rows(CLAIM, &[Argument::Number(subscription)]).await?;
    let time = began.elapsed();
    ensure!(claimed.len() == MOST, "a claim of {MOST} got {}", claimed.len());
    Ok(time)
}
