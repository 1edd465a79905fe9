//! What the consumers of a process ask of the server while they have nothing to do, as the server counts it.

use std::time::{Duration, Instant};

use futures::{StreamExt, future::select_all};
use pgqueue_core::{ConsumeStream, Consumers, Order, Retention, Subscription, Topic};
use pgqueue_postgres::{Client, PgQueue};
use pgqueue_testserver::Server;
use tokio::time::timeout;

use crate::{
    between::{Between, Deaf},
    both_clients::on_both_clients,
    common::{consume, next, publish_numbers},
};

on_both_clients!(idle_process_asks_once_in_a_second);

/// How many subscriptions are consumed.
const SUBSCRIPTIONS: usize = 50;

/// For how long is counted.
const WHILE: Duration = Duration::from_secs(12);

/// What a process sends while nothing comes, with the default options, and how often in a second at most, for all its consumers
/// together: one pulse, the chores, and whether it still listens. All else is a repetition at random of what the pulse asks.
const SENT: [(&str, f64); 6] = [
    ("pgqueue.pulse(", 0.5),
    ("pgqueue.keep_stuck(", 1.0 / 15.0),
    ("pgqueue.trim(", 1.0 / 15.0),
    ("pgqueue.sweep(", 1.0 / 30.0),
    ("pg_listening_channels(", 0.2),
    // A probe of the pool, before a connection that was not used for a while is.
    ("begin", 0.0),
];

/// How much more often, by where the rounds begin.
const ONCE_MORE: f64 = 1.0;

/// How often all together, in a second.
const AT_MOST: f64 = 1.0;

/// One of each kind, in turn.
fn subscription(number: usize) -> Subscription {
    let orders = [Order::Unordered, Order::ByKey, Order::Total, Order::StableTotal];
    let subscription = Subscription::new(format!("s{number}"), "orders").with_order(orders[number % orders.len()]);
    if number.is_multiple_of(7) { subscription.with_consumers(Consumers::SingleActive) } else { subscription }
}

/// What is consumed in a database of its own, so that the server counts it alone; something was, and is retained.
async fn consumed<C: Client>(server: &Server, database: &'static str) -> (&'static str, Vec<ConsumeStream>) {
    server.create_database(database).await.unwrap();
    let queue = PgQueue::<C>::connect(&server.url(database)).await.unwrap();
    queue.migrate().await.unwrap();
    queue.create_topic(Topic::new("orders").with_retention(Retention::everything())).await.unwrap();
    let mut streams = Vec::new();
    for number in 0..SUBSCRIPTIONS {
        streams.push(consume(&queue, subscription(number)).await);
    }
    publish_numbers(&queue, 0..3).await;
    for stream in &mut streams {
        for _ in 0..3 {
            next(stream).await.ok().await.unwrap();
        }
    }
    (database, streams)
}

#[expect(clippy::print_stderr, reason = "`--nocapture` shows what was counted")]
async fn idle_process_asks_once_in_a_second<C: Client>() {
    // Of every statement that comes from a client, whoever prepares it and whatever it is.
    let server =
        Server::builder().with_setting("shared_preload_libraries", "pg_stat_statements").start().await.unwrap();
    server.sql("postgres", "create extension pg_stat_statements").await.unwrap();
    let mut idle = [consumed::<C>(&server, "listens").await, consumed::<Between<C, Deaf>>(&server, "polls").await];
    nothing_comes(&mut idle, Duration::from_secs(6)).await; // what was delivered is behind them

    server.sql("postgres", "select pg_stat_statements_reset()").await.unwrap();
    let since = Instant::now();
    nothing_comes(&mut idle, WHILE).await;
    let counted = "select d.datname, s.calls, replace(s.query, E'\\n', ' ') from pg_stat_statements s join pg_database d on d.oid = s.dbid
                   where d.datname <> 'postgres' order by 1, 2 desc";
    let counted = server.sql("postgres", counted).await.unwrap();
    let seconds = since.elapsed().as_secs_f64();
    for (database, _) in &idle {
        let of_this = counted.lines().filter_map(|line| line.strip_prefix(database)?.trim_start().split_once('\t'));
        let of_this: Vec<(f64, &str)> = of_this.map(|(calls, query)| (calls.parse().unwrap(), query)).collect();
        let asked: f64 = of_this.iter().map(|(calls, _)| calls).sum();
        eprintln!("who {database}: {:.2} statements a second", asked / seconds);
        for (calls, query) in of_this {
            let known = SENT.iter().find(|(name, _)| query.contains(name));
            let (_, a_second) = known.unwrap_or_else(|| panic!("who {database} sends {query:?}, {calls} times"));
            let most = a_second * seconds + ONCE_MORE;
            assert!(calls <= most, "who {database} sent {query:?} {calls} times in {seconds} s");
        }
        assert!(asked <= AT_MOST * seconds, "who {database} asked {asked} times in {seconds} s");
        assert!(asked >= 0.4 * seconds, "who {database} beats");
    }
}

/// Waits for all streams, none of which has anything.
async fn nothing_comes(idle: &mut [(&str, Vec<ConsumeStream>)], long: Duration) {
    let all = idle.iter_mut().flat_map(|(_, streams)| streams.iter_mut().map(StreamExt::next));
    let came = timeout(long, select_all(all)).await;
    assert!(came.is_err(), "{came:?}");
}
