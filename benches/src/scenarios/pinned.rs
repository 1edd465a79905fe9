//! Publishing and consuming at the same pace while somebody holds vacuum's horizon, and nothing that was deleted goes away.

use std::{io::Write, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use pgqueue_core::Subscription;

use crate::{
    drivers::{Driver, Peer},
    harness::{Bench, Consumed, Contender, Measurement, Ours, Sample, TOPIC, Tally, Target, consume, pour},
};

/// Who publishes, and how much at a time.
const CLIENTS: usize = 4;
const BATCH: usize = 100;
/// How many claims are measured beside.
const PROBES: u32 = 30;
const FORGOTTEN: &str = "forgotten";

/// A claim that is forgotten, once to fill the session's caches, and once more.
const PROBE: &str = "
    begin;
    select count(*) from pgqueue.claim((select id from pgqueue.subscription), gen_random_uuid(), gen_random_uuid(), 100, false, true, 0, false);
    rollback;
    begin;
    explain (analyze, buffers, costs off)
    select * from pgqueue.claim((select id from pgqueue.subscription), gen_random_uuid(), gen_random_uuid(), 100, false, true, 0, false);
    rollback";

const VACUUM: [&str; 4] =
    ["vacuum pgqueue.log", "vacuum pgqueue.lease", "vacuum pgqueue.cursor", "vacuum pgqueue.sleeper"];
const DEAD: &str =
    "select sum(n_dead_tup)::bigint from pg_stat_user_tables where relname in ('log', 'lease', 'cursor', 'sleeper')";
const SIZE: &str =
    "select ((pg_total_relation_size('pgqueue.log') + pg_total_relation_size('pgqueue.lease')) / 1048576)::bigint";

/// How often the server's figures are looked at, and how many times.
const GLANCE: Duration = Duration::from_millis(100);
const GLANCES: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Culprit {
    Nobody,
    IdleTransaction,
    Reader,
    Slot,
}

pub(crate) async fn run<D: Driver>(bench: &mut Bench) -> Result<()> {
    let (size, consumers) = (bench.arguments.payload, bench.arguments.consumers.unwrap_or(2));
    let duration = bench.arguments.long_duration();
    let held_by = |who, culprit| {
        let contender = Contender::new(who, move |m| held::<D>(m, duration, size, consumers, culprit));
        contender.with("clients", CLIENTS).with("consumers", consumers)
    };
    let contenders = [
        held_by("nobody", Culprit::Nobody),
        held_by("idle transaction", Culprit::IdleTransaction).against(0).hopes_for(Target::AtLeast(0.9)),
        held_by("old snapshot", Culprit::Reader).against(0).hopes_for(Target::AtLeast(0.9)),
        held_by("replication slot", Culprit::Slot).against(0).hopes_for(Target::AtLeast(0.9)),
    ];
    bench.compare("pinned", &contenders).await
}

async fn held<D: Driver>(
    m: Measurement,
    duration: Duration,
    size: usize,
    consumers: usize,
    culprit: Culprit,
) -> Result<Sample> {
    let duration = if m.is_warm_up() { m.duration } else { duration };
    let queue = m.queue::<D>(CLIENTS + 3 * consumers).await?;
    let subscription = Subscription::new("consumed", TOPIC);
    queue.insert_subscription(&subscription).await?;
    m.settle().await?;

    let mut peer = m.peer::<D>().await?;
    match culprit {
        Culprit::Nobody => {}
        Culprit::IdleTransaction => {
            hold(&mut peer, "begin", "select pg_current_xact_id()::text::bigint, ''::bytea").await?;
        }
        Culprit::Reader => {
            hold(&mut peer, "begin isolation level repeatable read", "select count(*), ''::bytea from pg_class")
                .await?;
        }
        Culprit::Slot => m.leave_slot(FORGOTTEN).await?,
    }

    let tally = Arc::new(Tally::new(None));
    let prefetch = subscription.prefetch();
    let consumer = |_| tokio::spawn(consume(queue.clone(), subscription.clone(), prefetch, Arc::clone(&tally)));
    let tasks: Vec<_> = (0..consumers).map(consumer).collect();
    let sinks = (0..CLIENTS).map(|_| Consumed(Ours(queue.clone()), Arc::clone(&tally))).collect();
    let meter = m.meter().await?;
    let mut probes = Vec::new();
    let poured = tokio::select! {
        poured = pour(&m, sinks, BATCH, size, duration) => poured?,
        Err(error) = probe(&m, duration / PROBES, &mut probes) => return Err(error),
    };
    tally.expect(poured.total);
    tally.complete().await;
    let spent = meter.stop().await?;
    for task in tasks {
        task.await??;
    }
    tally.check()?;
    let claims = growth(&probes);

    let holder = queue.horizon_holder().await?;
    // A session at work holds it for a moment, too.
    let is_named = holder.as_ref().is_some_and(|holder| holder.who.contains(FORGOTTEN));
    ensure!(is_named == (culprit != Culprit::Nobody), "{culprit:?} holds the horizon; the queue says {holder:?}");
    while m.number("select pgqueue.trim()").await? > 0 {}
    vacuum(&m).await?;
    let (dead, size) = (m.number(DEAD).await?, m.number(SIZE).await?);
    match culprit {
        Culprit::Nobody => {}
        Culprit::IdleTransaction | Culprit::Reader => peer.script("rollback").await.map(drop)?,
        Culprit::Slot => m.sql("select pg_drop_replication_slot('forgotten')").await.map(drop)?,
    }
    vacuum(&m).await?;
    let mut glances = 0..GLANCES;
    while m.number(DEAD).await? > 0 && glances.next().is_some() {
        tokio::time::sleep(GLANCE).await; // the figures come a little late
    }
    let (left, size_left) = (m.number(DEAD).await?, m.number(SIZE).await?);
    let who = holder.map_or_else(
        || "nobody".to_owned(),
        |holder| format!("{} {}, {} ids old", holder.what, holder.who, holder.age),
    );
    writeln!(
        std::io::stderr(),
        "          {culprit:?}: {claims}; held by {who}; vacuum leaves {dead} dead rows in {size} MB, and afterwards {left} in {size_left} MB"
    )?;
    ensure!(left == 0, "{left} dead rows stay though nobody holds the horizon");
    Ok(Sample::metered(poured.total, spent))
}

async fn hold(peer: &mut impl Peer, begin: &'static str, look: &'static str) -> Result<()> {
    peer.script("set application_name = 'forgotten'").await?;
    peer.script(begin).await?;
    peer.rows(look, &[]).await.map(drop)
}

/// What a claim touched and took, in milliseconds.
type Probed = (usize, f64);

/// Measures a claim again and again, beside the consumers.
async fn probe(m: &Measurement, every: Duration, probes: &mut Vec<Probed>) -> Result<()> {
    loop {
        tokio::time::sleep(every).await;
        let plan = m.sql(PROBE).await?;
        let words = |line: &str| line.split([' ', ',']).map(str::to_owned).collect::<Vec<_>>();
        let buffers = plan.lines().find(|line| line.trim_start().starts_with("Buffers: shared")).map(words);
        let buffers = buffers.unwrap_or_default();
        let touched = buffers.iter().filter(|word| word.starts_with("hit=") || word.starts_with("read="));
        let touched = touched.filter_map(|word| word.split('=').nth(1)?.parse::<usize>().ok()).sum();
        let time = plan.lines().find_map(|line| line.trim().strip_prefix("Execution Time: ")?.strip_suffix(" ms"));
        probes.push((touched, time.context("the plan says no time")?.parse()?));
    }
}

/// What claims took in the first third and in the last. Some find messages and some none, so that is to be read with what they
/// took while nobody held the horizon.
fn growth(probes: &[Probed]) -> String {
    let third = probes.len() / 3;
    let middle = |probes: &[Probed]| {
        let mut touched: Vec<_> = probes.iter().map(|(touched, _)| *touched).collect();
        let mut times: Vec<_> = probes.iter().map(|(_, time)| *time).collect();
        touched.sort_unstable();
        times.sort_by(f64::total_cmp);
        Some((*touched.get(touched.len() / 2)?, *times.get(times.len() / 2)?))
    };
    let (Some(first), Some(last)) = (middle(&probes[..third]), middle(&probes[probes.len() - third..])) else {
        return "too short to measure claims".to_owned();
    };
    format!("a claim touches {} buffers in {:.2} ms, in the end {} in {:.2} ms", first.0, first.1, last.0, last.1)
}

async fn vacuum(m: &Measurement) -> Result<()> {
    for statement in VACUUM {
        m.sql(statement).await?;
    }
    Ok(())
}
