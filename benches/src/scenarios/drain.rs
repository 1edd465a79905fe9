//! Working off a backlog, each message answered by itself and durably, beside queues that one would write by hand.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use pgqueue_core::{Message, Subscription};

use crate::{
    drivers::{Argument, Driver, Peer},
    harness::{Bench, Contender, Measurement, Sample, TOPIC, Tally, Target, number, work_off},
};

const TABLE: &str = "create table jobs (
    id           bigint generated always as identity primary key,
    payload      bytea not null,
    locked_until timestamptz not null default '-infinity'
)";

const INSERT: &str = "insert into jobs (payload) select * from unnest($1::bytea[])";

/// Takes a lease of 30 s on the next that nobody has one on.
const LEASE: &str = "
    update jobs j set locked_until = now() + interval '30 seconds'
    from (select id from jobs where locked_until < now() order by id limit 100 for update skip locked) next
    where j.id = next.id
    returning j.id, j.payload";

const DELETE: &str = "delete from jobs where id = any ($1)";

/// Takes the next out, which holds if the transaction commits.
const TAKE: &str = "
    with next as (select id from jobs order by id limit 100 for update skip locked)
    delete from jobs j using next where j.id = next.id
    returning j.id, j.payload";

/// Takes one out, in the same way.
const TAKE_ONE: &str = "
    delete from jobs where id = (select id from jobs order by id limit 1 for update skip locked)
    returning id, payload";

/// The pause before looking again while others hold what is left.
const PAUSE: Duration = Duration::from_millis(1);

pub(crate) async fn run<D: Driver>(bench: &mut Bench) -> Result<()> {
    let (messages, size) = (bench.arguments.messages(200_000), bench.arguments.payload);
    let consumers = bench.arguments.consumers.map_or(vec![1, 4], |consumers| vec![consumers]);
    for consumers in consumers {
        let lease =
            Contender::new("lease, then delete", move |m| by_hand::<D>(m, By::Lease, messages, size, consumers));
        let take =
            Contender::new("delete in a transaction", move |m| by_hand::<D>(m, By::Delete, messages, size, consumers));
        let ours = |prefetch: usize, handlers: usize| {
            Contender::new("pgqueue", move |m| ours::<D>(m, messages, size, consumers, prefetch, handlers))
                .with("consumers", consumers)
                .with("prefetch", prefetch)
                .with("handlers", handlers)
                .against(0)
                .hopes_for(Target::AtLeast(2.5))
                .against(1)
                .hopes_for(Target::AtLeast(1.0))
        };
        let contenders = [
            lease.with("consumers", consumers),
            take.with("consumers", consumers),
            ours(100, 100),
            ours(100, 1000),
            ours(1000, 1000),
        ];
        bench.compare("drain", &contenders).await?;
    }
    Ok(())
}

pub(crate) async fn ours<D: Driver>(
    m: Measurement,
    messages: usize,
    size: usize,
    consumers: usize,
    prefetch: usize,
    handlers: usize,
) -> Result<Sample> {
    let messages = m.scaled(messages);
    let queue = m.queue::<D>(0).await?;
    let subscription = Subscription::new("drain", TOPIC).with_prefetch(prefetch);
    queue.insert_subscription(&subscription).await?;
    m.load::<D>(&m.stocked_queue::<D>(0).await?, TOPIC, messages, size).await?;
    m.settle().await?;

    let tally = Tally::new(Some(messages));
    let place = |message: &Message| number(message.payload());
    let spent = work_off(&m, &queue, &subscription, consumers, handlers, tally, place).await?;
    Ok(Sample::metered(messages, spent))
}

/// How one takes messages by hand.
#[derive(Clone, Copy, Debug)]
pub enum By {
    /// A lease on 100 and a delete, in transactions of their own.
    Lease,
    /// A delete of 100 in a transaction that is open while the messages are handled.
    Delete,
    /// A delete of one in a transaction that is open while the message is handled.
    One,
}

pub(crate) async fn by_hand<D: Driver>(
    m: Measurement,
    by: By,
    messages: usize,
    size: usize,
    consumers: usize,
) -> Result<Sample> {
    let messages = m.scaled(messages);
    m.sql(TABLE).await?;
    m.load_table::<D>(INSERT, messages, size).await?;
    m.settle().await?;

    let tally = Arc::new(Tally::new(Some(messages)));
    let peers = m.peers::<D>(consumers).await?;
    let meter = m.meter().await?;
    let worker = |peer| tokio::spawn(work(peer, by, Arc::clone(&tally)));
    let tasks: Vec<_> = peers.into_iter().map(worker).collect();
    tally.complete().await;
    let spent = meter.stop().await?;
    try_join_all(tasks).await?.into_iter().collect::<Result<Vec<_>>>()?;
    tally.check()?;
    ensure!(m.number("select count(*) from jobs").await? == 0, "something is left");
    Ok(Sample::metered(messages, spent))
}

async fn work(mut peer: impl Peer, by: By, tally: Arc<Tally>) -> Result<()> {
    while !tally.is_complete() {
        let jobs = match by {
            By::Lease => peer.rows(LEASE, &[]).await?,
            By::Delete | By::One => {
                peer.script("begin").await?;
                peer.rows(if matches!(by, By::One) { TAKE_ONE } else { TAKE }, &[]).await?
            }
        };
        let mut ids = Vec::with_capacity(jobs.len());
        for (id, payload) in &jobs {
            tally.arrived(number(payload)?);
            ids.push(*id);
        }
        match by {
            By::Lease if jobs.is_empty() => {}
            By::Lease => {
                let deleted = peer.execute(DELETE, &[Argument::Numbers(ids)]).await?;
                ensure!(deleted == jobs.len() as u64, "a lease was lost");
            }
            By::Delete | By::One => peer.script("commit").await?,
        }
        tally.settled(jobs.len());
        if jobs.is_empty() {
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}
