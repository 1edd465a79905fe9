//! What an idle process asks of the server, as the server counts it.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::{StreamExt, future::select_all};
use pgqueue_core::{Order, Subscription, Topic, subscribe};
use pgqueue_postgres::PgQueue;
use pgqueue_testserver::Server;
use tokio::time::{Instant, timeout};

use crate::{
    drivers::Driver,
    harness::{Bench, Contender, Measurement, Sample, TOPIC, Target},
};

const SUBSCRIPTIONS: usize = 50;

/// After how long what comes with the beginning is over.
const CALM: Duration = Duration::from_secs(4);

/// One of each, in turn.
const ORDERS: [Order; 4] = [Order::Unordered, Order::ByKey, Order::Total, Order::StableTotal];

const DATABASE: &str = "idle";

const STATEMENTS: &str = "
    select coalesce(sum(calls), 0)::bigint
    from pg_stat_statements s join pg_database d on d.oid = s.dbid where d.datname = 'idle'";

pub(crate) async fn run<D: Driver>(bench: &mut Bench) -> Result<()> {
    let (subscriptions, duration) =
        (bench.arguments.subscriptions.unwrap_or(SUBSCRIPTIONS), bench.arguments.idle_duration());
    let contender = Contender::new("pgqueue, statements", move |m| measure::<D>(m, subscriptions, duration));
    bench.compare("idle", &[contender.with("subscriptions", subscriptions).hopes_for(Target::Rate(1.0))]).await
}

async fn measure<D: Driver>(m: Measurement, subscriptions: usize, duration: Duration) -> Result<Sample> {
    let (calm, duration) = if m.is_warm_up() { (Duration::ZERO, m.duration) } else { (CALM, duration) };
    // A server of its own, as one that counts every statement is slower where speed is the measure.
    let server = Server::builder().with_setting("shared_preload_libraries", "pg_stat_statements").start().await?;
    server.sql("postgres", "create extension pg_stat_statements").await?;
    server.create_database(DATABASE).await?;
    let queue = PgQueue::<D::Client>::new(D::client(&server.url(DATABASE), 16).await?);
    queue.migrate().await?;
    queue.create_topic(Topic::new(TOPIC)).await?;
    let mut streams = Vec::new();
    for n in 0..subscriptions {
        let order = ORDERS[n % ORDERS.len()];
        let subscription = Subscription::new(format!("subscription {n}"), TOPIC).with_order(order);
        queue.insert_subscription(&subscription).await?;
        streams.push(Box::pin(subscribe(queue.subscription(subscription)).await?));
    }
    let mut nothing_comes =
        async |long: Duration| match timeout(long, select_all(streams.iter_mut().map(StreamExt::next))).await {
            Err(_) => Ok(()),
            Ok((Some(Err(error)), ..)) => Err(anyhow::Error::from(error)),
            Ok(_) => bail!("something came that nobody published"),
        };
    nothing_comes(calm).await?;
    server.sql("postgres", "select pg_stat_statements_reset()").await?;
    let since = Instant::now();
    nothing_comes(duration).await?;
    let statements = server.sql("postgres", STATEMENTS).await?;
    let statements = statements.trim().parse().with_context(|| format!("{statements:?} is no number"))?;
    Ok(Sample::rate(statements, since.elapsed()))
}
