//! A database with a log of some size, and a crowd of everything else.

use pgqueue_testserver::Server;
use pgqueue_tokio_postgres::PgQueue;

use crate::session::Session;

/// The orders, by the number of their subscription.
pub(crate) const ORDERS: [(i64, &str); 4] = [(1, "unordered"), (2, "by key"), (3, "total"), (4, "stable total")];
/// Subscriptions that get a part: a key, kinds, and a condition on payloads.
pub(crate) const SELECTIVE: [(i64, &str, &str); 3] = [
    (5, "a key", r#"'{"key": "key 7"}', 'key 7', null, null, null, null"#),
    (6, "kinds", r#"'{"kinds": ["rare"]}', null, '{rare}', null, null, null"#),
    (7, "a condition", r#"'{"payload": 3}', null, null, null, null, '{"payload": 3}'"#),
];

/// What the planner knows of the tables.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Statistics {
    /// What is.
    Fresh,
    /// Nothing.
    Missing,
    /// That they are empty.
    Stale,
}

/// Of which transactions the messages are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Transactions {
    Many,
    One,
}

pub(crate) async fn furnish(url: &str, statistics: Statistics) -> Session {
    PgQueue::connect(url).await.unwrap().migrate().await.unwrap();
    let session = Session::open(url).await;
    for table in ["log", "lease", "cursor", "sleeper", "settled", "owner", "kept", "dead_letter", "scheduled", "dedup"]
    {
        session.run(&format!("alter table pgqueue.{table} set (autovacuum_enabled = off)")).await;
    }
    session.run("select pgqueue.create_topic('t', 16, 60000), pgqueue.create_topic('passed', 16, 60000)").await;
    let insert = |name: &str, order: &str, selector: &str| {
        format!(
            "select pgqueue.insert_subscription('{name}', 't', '{order}', 100, 100, 60000, 20, 1000, 2, 60000, 0, null, {selector})"
        )
    };
    for (_, order) in ORDERS {
        session.run(&insert(order, order, "null, null, null, null, null, null")).await;
    }
    for (_, what, selector) in SELECTIVE {
        session.run(&insert(what, "unordered", selector)).await;
    }
    if matches!(statistics, Statistics::Stale) {
        session.run("analyze").await;
    }
    session
}

/// A session in the midst of a transaction, so that every claim looks for latecomers.
pub(crate) async fn somebody_at_work(url: &str) -> Session {
    let session = Session::open(url).await;
    session.run("begin; select pg_current_xact_id()").await;
    session
}

/// Publishes so many messages, and with them a crowd of everything else: sleepers, retries and dead letters that are kept, scheduled
/// messages and dedup ids, most of them for another day.
pub(crate) async fn fill(session: &Session, messages: u64, transactions: Transactions) {
    let size = if matches!(transactions, Transactions::One) { messages } else { 500 };
    for _ in 0..messages / size {
        let publish = format!(
            "select cardinality(pgqueue.publish_batch('t', array_agg(((n % 10)::text)::bytea), array_agg('key ' || n % 100), \
             array_agg(case when n % 50 = 0 then 'rare' else 'frequent' end))) from generate_series(1, {size}) n"
        );
        session.run(&publish).await;
    }
    let crowd = format!(
        "insert into pgqueue.sleeper (topic, armed_until) select 1, clock_timestamp() - interval '1 minute' from generate_series(1, {0}); \
         insert into pgqueue.lease (subscription, lane, rank, claimed_at, ready_at, kept, ids) \
         select 1, -1, 0, now() - interval '1 hour', now() + interval '1 day', true, '{{1}}' from generate_series(1, {0}); \
         with dead as ( \
           select id, xact from pgqueue.log l where topic = 1 and not exists (select from pgqueue.kept k where k.subscription = 3 and k.id = l.id) \
           order by id limit {0} \
         ), kept as ( \
           insert into pgqueue.kept (subscription, id, xact, published_at, payload) select 3, id, xact, now(), 'x' from dead \
         ) \
         insert into pgqueue.dead_letter (subscription, id, attempts, reason, died_at, lane) select 3, id, 1, 'bad', now(), 0 from dead; \
         insert into pgqueue.scheduled (topic, due_at, payload) select 1, now() + interval '1 day', 'x' from generate_series(1, {0}); \
         insert into pgqueue.dedup (topic, dedup_id, message, expires_at) \
         select 1, gen_random_uuid(), '1', now() + interval '1 day' from generate_series(1, {0})",
        messages / 10
    );
    session.run(&crowd).await;
}

/// A server of its own, with room for so many prepared transactions.
pub(crate) async fn server_with_prepared(most: usize) -> Server {
    Server::builder().with_setting("max_prepared_transactions", most.to_string()).start().await.unwrap()
}
