//! What a consumer asks of the server while it has nothing to do, as the server counts it.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::{StreamExt, future::join_all};
use pgqueue_core::{ConsumeStream, Topic};
use pgqueue_postgres::{Client, PgQueue};
use pgqueue_testserver::Server;
use tokio::time::timeout;

use crate::{
    between::{Between, Meddle},
    both_clients::on_both_clients,
    common::{consume, invoices, next, publish_number},
};

on_both_clients!(idle_consumer_asks_seldom);

/// For how long is counted.
const WHILE: Duration = Duration::from_secs(4);

/// What a consumer sends while nothing comes, with the default options, and how often in a second at most. It looks by its poll interval
/// and after each beat, three of which are in a lease; all else are chores, and whether it still listens.
const SENT: [(&str, f64); 9] = [
    ("pgqueue.claim(", 1.5),
    ("pgqueue.arm(", 1.0),
    ("pgqueue.beat(", 0.5),
    ("pgqueue.bury_owners(", 1.0),
    ("pgqueue.publish_scheduled(", 1.0),
    ("pgqueue.keep_stuck(", 0.5),
    ("pgqueue.trim(", 0.5),
    ("pgqueue.sweep(", 1.0 / 30.0),
    ("pg_listening_channels(", 0.2),
];

/// How much more often, by where the rounds begin.
const ONCE_MORE: f64 = 1.0;

/// Makes a client one that cannot listen.
#[derive(Default)]
struct Deaf;

#[async_trait]
impl Meddle for Deaf {
    const LISTENS: bool = false;
}

/// What is consumed in a database of its own, so that the server counts it alone.
async fn consumed<C: Client>(server: &Server, database: &'static str) -> (&'static str, ConsumeStream) {
    server.create_database(database).await.unwrap();
    let queue = PgQueue::<C>::connect(&server.url(database)).await.unwrap();
    queue.migrate().await.unwrap();
    queue.create_topic(Topic::new("orders")).await.unwrap();
    let mut stream = consume(&queue, invoices()).await;
    publish_number(&queue, 1).await;
    next(&mut stream).await.ok().await.unwrap();
    (database, stream)
}

#[expect(clippy::print_stderr, reason = "`--nocapture` shows what was counted")]
async fn idle_consumer_asks_seldom<C: Client>() {
    // Of every statement that comes from a client, whoever prepares it and whatever it is.
    let server =
        Server::builder().with_setting("shared_preload_libraries", "pg_stat_statements").start().await.unwrap();
    server.sql("postgres", "create extension pg_stat_statements").await.unwrap();
    let mut idle = [consumed::<C>(&server, "listens").await, consumed::<Between<C, Deaf>>(&server, "polls").await];
    nothing_comes(&mut idle, Duration::from_secs(1)).await; // what was delivered is behind them

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
        eprintln!("who {database}: {:.1} statements a second", asked / seconds);
        for (calls, query) in of_this {
            let known = SENT.iter().find(|(name, _)| query.contains(name));
            let (_, a_second) = known.unwrap_or_else(|| panic!("who {database} sends {query:?}, {calls} times"));
            assert!(*database == "listens" || !query.contains("arm("), "nobody could ring for who {database}");
            let most = a_second * seconds + ONCE_MORE + f64::from(u8::from(query.contains("claim(")));
            assert!(calls <= most, "who {database} sent {query:?} {calls} times in {seconds} s");
        }
        assert!(asked >= 2.0, "who {database} looks by its poll interval");
    }
}

async fn nothing_comes(idle: &mut [(&str, ConsumeStream)], long: Duration) {
    let all = idle.iter_mut().map(|(database, stream)| async move {
        let came = timeout(long, stream.next()).await;
        assert!(came.is_err(), "{database}: {came:?}");
    });
    join_all(all).await;
}
