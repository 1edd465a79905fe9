//! Who holds which rows, and who takes over when.

use std::time::Duration;

use futures::StreamExt;
use pgqueue_core::{Ack, ErrorKind, subscribe};
use pgqueue_postgres::{Client, Locking, PendingQuery, PgTables};
use pgqueue_tests::WAITS;
use tokio::time::{Instant, timeout};

use crate::{
    both_clients::on_both_clients,
    common::{QUIET, assert_says, next, patiently, quiet, take, until_sql},
    table::{Small, consume, database, driver, free, insert, left, messages, payload, payloads, tables},
};

on_both_clients!(
    two_unordered_consumers_hold_different_rows,
    no_more_rows_are_locked_than_are_handed_out,
    ordered_waiter_takes_over_when_the_holder_commits,
    ordered_waiter_takes_over_when_the_holder_rolls_back,
    ordered_waiter_takes_over_when_the_holder_is_killed,
    ordered_waiter_does_not_pass_what_was_requeued,
    ordered_consumer_has_one_delivery_out,
    dropped_delivery_is_pending_again,
    rows_of_a_consumer_that_was_killed_come_again_within_seconds,
    delivery_that_was_fetched_and_not_handed_out_is_rolled_back,
    idle_consumer_stops_at_once,
    pool_of_n_serves_one_less,
    pool_of_one_is_refused,
    requeued_batch_comes_back_whole,
);

/// How long taking over may take.
const TAKEOVER: Duration = Duration::from_secs(1);

const DELETE: &str = "delete from messages where id = any($1)";

const IDLE_IN_TRANSACTION: &str = "select count(*) from pg_stat_activity \
    where datname = current_database() and state like 'idle in transaction%'";

async fn two_unordered_consumers_hold_different_rows<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..3).await;
    let mut first = consume(driver(&tables, "a", Locking::Unordered)).await;
    let mut second = consume(driver(&tables, "a", Locking::Unordered)).await;
    let held = [next(&mut first).await, next(&mut second).await, next(&mut first).await];
    let mut seen = held.each_ref().map(payload);
    seen.sort();
    assert_eq!(seen, ["0", "1", "2"]);
    assert_eq!(free(&database).await, "0");
}

async fn no_more_rows_are_locked_than_are_handed_out<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..100).await;
    for (locking, batch) in [(Locking::Unordered, 1), (Locking::Unordered, 7), (Locking::Ordered, 3)] {
        let mut stream = consume(tables.query(messages::<C>("a", locking).with_batch(batch))).await;
        let delivery = next(&mut stream).await;
        assert_eq!(payloads(&delivery).len(), batch);
        assert_eq!(free(&database).await, (100 - batch).to_string());
        drop((delivery, stream));
        until_sql(&database, IDLE_IN_TRANSACTION, "0").await;
    }
    // Nor while the table has no statistics, an index less, and a query that joins.
    database.sql("alter table messages drop constraint messages_pkey").await.unwrap();
    database.sql("create table subscriptions (name text); insert into subscriptions values ('a')").await.unwrap();
    let base =
        "select m.id, m.payload from messages m join subscriptions s on s.name = m.subscription order by m.payload";
    let query = pgqueue_postgres::PendingQuery::new("joined", base).with_ok("delete from messages where id = any($1)");
    let mut stream = consume(tables.query(query.with_batch(5))).await;
    let delivery = next(&mut stream).await;
    assert_eq!(delivery.messages().len(), 5);
    assert_eq!(free(&database).await, "95");
}

/// Two consumers, of which the first holds what the second waits for.
async fn holder_and_waiter<C: Client>(
    tables: &PgTables<C>,
) -> (pgqueue_core::Delivery, pgqueue_core::ConsumeStream, tokio::task::JoinHandle<(String, Instant)>) {
    let mut first = consume(driver(tables, "a", Locking::Ordered)).await;
    let held = next(&mut first).await;
    let mut second = consume(driver(tables, "a", Locking::Ordered)).await;
    quiet(&mut second).await;
    let waiter = tokio::spawn(async move {
        let delivery = next(&mut second).await;
        let at = Instant::now();
        let seen = payload(&delivery);
        delivery.ok().await.unwrap();
        (seen, at)
    });
    (held, first, waiter)
}

async fn ordered_waiter_takes_over_when_the_holder_commits<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..2).await;
    let (held, _first, waiter) = holder_and_waiter(&tables).await;
    held.ok().await.unwrap();
    let freed = Instant::now();
    let (seen, at) = waiter.await.unwrap();
    assert_eq!(seen, "1");
    assert!(at - freed < TAKEOVER, "{:?}", at - freed);
}

async fn ordered_waiter_takes_over_when_the_holder_rolls_back<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..2).await;
    let (held, first, waiter) = holder_and_waiter(&tables).await;
    let freed = Instant::now();
    drop((held, first));
    let (seen, at) = waiter.await.unwrap();
    assert_eq!(seen, "0");
    assert!(at - freed < TAKEOVER, "{:?}", at - freed);
}

async fn ordered_waiter_takes_over_when_the_holder_is_killed<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..2).await;
    let (held, _first, waiter) = holder_and_waiter(&tables).await;
    let kill = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                where datname = current_database() and state = 'idle in transaction'";
    let freed = Instant::now();
    assert_eq!(database.sql(kill).await.unwrap(), "1");
    let (seen, at) = waiter.await.unwrap();
    assert_eq!(seen, "0");
    assert!(at - freed < TAKEOVER, "{:?}", at - freed);
    held.ok().await.unwrap_err();
    until_sql(&database, "select count(*) from messages", "1").await;
}

async fn ordered_waiter_does_not_pass_what_was_requeued<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..2).await;
    let waits = "select id, payload from messages m where due_at <= now() and not exists \
                 (select from messages before where before.id < m.id and before.due_at > now()) order by id";
    let driver = || {
        let requeue = "update messages set due_at = statement_timestamp() + $2 * interval '1 ms' where id = any($1)";
        let query = PendingQuery::new("messages", waits).with_locking(Locking::Ordered).with_requeue(requeue);
        tables.query(query.with_next_due("select due_at from messages order by id limit 1").with_ok(DELETE))
    };
    let mut first = consume(driver()).await;
    let held = next(&mut first).await;
    let mut second = consume(driver()).await;
    let waiter = tokio::spawn(async move { payload(&next(&mut second).await) });
    until_sql(&database, WAITS, "1").await;
    held.settle(Ack::requeue_after(Duration::from_millis(300))).await.unwrap();
    drop(first);
    assert_eq!(waiter.await.unwrap(), "0");
}

async fn ordered_consumer_has_one_delivery_out<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..2).await;
    let mut stream = consume(driver(&tables, "a", Locking::Ordered)).await;
    let held = next(&mut stream).await;
    quiet(&mut stream).await;
    assert_eq!(database.sql(WAITS).await.unwrap(), "0");
    held.ok().await.unwrap();
    assert_eq!(payload(&next(&mut stream).await), "1");
}

async fn dropped_delivery_is_pending_again<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..1).await;
    for locking in [Locking::Ordered, Locking::Unordered] {
        let rarely = messages::<C>("a", locking).with_poll_interval(Duration::from_secs(3600));
        let mut stream = consume(tables.query(rarely)).await;
        for _ in 0..5 {
            drop(next(&mut stream).await);
        }
        drop(stream);
    }
    until_sql(&database, IDLE_IN_TRANSACTION, "0").await;
    assert_eq!(left(&database).await, "1");
}

/// A rollback notifies nobody.
async fn rows_of_a_consumer_that_was_killed_come_again_within_seconds<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..1).await;
    let rarely = || messages::<C>("a", Locking::Unordered).with_poll_interval(Duration::from_secs(3600));
    let mut first = consume(tables.query(rarely())).await;
    let held = next(&mut first).await;
    let mut second = consume(tables.query(rarely())).await;
    quiet(&mut second).await;
    drop((held, first));
    let again = timeout(Duration::from_secs(5), second.next()).await.expect("within seconds").unwrap().unwrap();
    assert_eq!(payload(&again), "0");
}

async fn delivery_that_was_fetched_and_not_handed_out_is_rolled_back<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..50).await;
    for patience in [0, 1, 2, 3, 5, 8, 13, 21] {
        let mut stream = consume(driver(&tables, "a", Locking::Unordered)).await;
        drop(timeout(Duration::from_millis(patience), stream.next()).await);
    }
    until_sql(&database, IDLE_IN_TRANSACTION, "0").await;
    assert_eq!(free(&database).await, "50");
}

async fn idle_consumer_stops_at_once<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    for locking in [Locking::Ordered, Locking::Unordered] {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let stream = patiently("a stream", subscribe(driver(&tables, "a", locking))).await.unwrap();
        let mut stream = Box::pin(stream.until(async { drop(stopped.await) }));
        assert!(timeout(QUIET, stream.next()).await.is_err());
        let since = Instant::now();
        stop.send(()).unwrap();
        assert!(patiently("the end", stream.next()).await.is_none());
        assert!(since.elapsed() < TAKEOVER);
    }
}

async fn pool_of_n_serves_one_less<C: Small>() {
    let database = database().await;
    let tables = PgTables::<C>::new(C::of(&database.url(), 4));
    insert(&database, "a", 0..5).await;
    let mut stream = consume(driver(&tables, "a", Locking::Unordered)).await;
    let held = take(&mut stream, 3).await;
    quiet(&mut stream).await;
    for delivery in held {
        delivery.ok().await.unwrap();
    }
    for delivery in take(&mut stream, 2).await {
        delivery.ok().await.unwrap();
    }
}

async fn pool_of_one_is_refused<C: Small>() {
    let database = database().await;
    let tables = PgTables::<C>::new(C::of(&database.url(), 1));
    for locking in [Locking::Ordered, Locking::Unordered] {
        let error = subscribe(driver(&tables, "a", locking)).await.unwrap_err();
        assert_says(&error, ErrorKind::Invalid, &["\"messages\"", "1 connections"]);
    }
    let greedy = messages::<C>("a", Locking::Unordered).with_max_deliveries(4);
    let tables = PgTables::<C>::new(C::of(&database.url(), 4));
    assert_says(&subscribe(tables.query(greedy)).await.unwrap_err(), ErrorKind::Invalid, &["4 connections"]);
}

async fn requeued_batch_comes_back_whole<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..4).await;
    let driver = tables.query(messages::<C>("a", Locking::Unordered).with_batch(3));
    let mut stream = patiently("a stream", subscribe(driver)).await.unwrap();
    let delivery = next(&mut stream).await;
    assert_eq!(payloads(&delivery), [0, 1, 2]);
    delivery.requeue().await.unwrap();
    let again = next(&mut stream).await;
    assert_eq!(payloads(&again), [0, 1, 2]);
}
