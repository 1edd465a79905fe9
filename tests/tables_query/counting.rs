//! Deliveries are counted, whatever becomes of them.

use std::collections::HashMap;

use pgqueue_postgres::{Client, Locking, PendingQuery, Tracking};
use pgqueue_tests::WAITS;

use crate::{
    both_clients::on_both_clients,
    common::{next, patiently, until_sql},
    table::{Small, consume, database, insert, left, messages, payload, tables},
};

on_both_clients!(
    count_survives_a_crash,
    answers_are_dated,
    row_that_nobody_answers_is_rejected_after_its_last_attempt,
    each_delivery_is_counted_once_however_many_consumers_compete,
    ordered_waiters_do_not_count,
    count_is_read_from_a_column,
);

fn counted<C: Client>(locking: Locking) -> PendingQuery<C::Row> {
    let tracking =
        Tracking::new("messages").with_last_delivered_at("last_delivered_at").with_last_ack_at("last_ack_at");
    messages::<C>("a", locking).with_tracking(tracking)
}

async fn count_survives_a_crash<C: Client>() {
    for locking in [Locking::Ordered, Locking::Unordered] {
        let database = database().await;
        let tables = tables::<C>(&database).await;
        insert(&database, "a", 0..1).await;
        let mut stream = consume(tables.query(counted::<C>(locking))).await;
        let mut before = None;
        for attempt in 1..=3 {
            let delivery = next(&mut stream).await;
            let last = delivery.message().last_delivered_at();
            assert!(last.is_some() == (attempt > 1) && (last > before || attempt == 1), "{last:?} after {before:?}");
            before = last;
            assert_eq!(delivery.message().attempt(), attempt);
            assert_eq!(database.sql("select deliveries from messages").await.unwrap(), attempt.to_string());
            let kill = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                        where datname = current_database() and state = 'idle in transaction'";
            assert_eq!(database.sql(kill).await.unwrap(), "1");
        }
        let dated = "select last_delivered_at > now() - interval '1 minute' from messages";
        assert_eq!(database.sql(dated).await.unwrap(), "t");
    }
}

async fn answers_are_dated<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..1).await;
    let mut stream = consume(tables.query(counted::<C>(Locking::Unordered))).await;
    next(&mut stream).await.requeue().await.unwrap();
    let dated = "select last_ack_at >= last_delivered_at from messages";
    assert_eq!(database.sql(dated).await.unwrap(), "t");
}

/// And those behind it are handed out.
async fn row_that_nobody_answers_is_rejected_after_its_last_attempt<C: Client>() {
    for (locking, batch) in [(Locking::Ordered, 1), (Locking::Unordered, 1), (Locking::Ordered, 2)] {
        let database = database().await;
        let tables = tables::<C>(&database).await;
        database.sql("create table rejected (payload text, deliveries int, reason text)").await.unwrap();
        let reject = "with gone as (delete from messages where id = any($1) returning payload, deliveries) \
                      insert into rejected select payload, deliveries, $2 from gone";
        let query = counted::<C>(locking).with_batch(batch).with_max_attempts(2).with_reject(reject);
        insert(&database, "a", 0..1).await;
        let mut stream = consume(tables.query(query)).await;
        for _ in 0..2 {
            drop(next(&mut stream).await);
        }
        insert(&database, "a", 1..2).await;
        let neighbour = next(&mut stream).await;
        assert_eq!((payload(&neighbour), neighbour.message().attempt()), ("1".to_owned(), 1));
        neighbour.ok().await.unwrap();
        let rejected = database.sql("select concat_ws(', ', payload, deliveries, reason) from rejected").await.unwrap();
        assert_eq!(rejected, "0, 2, given up after 2 attempts", "{locking:?}");
        assert_eq!(left(&database).await, "0");
    }
}

async fn each_delivery_is_counted_once_however_many_consumers_compete<C: Small>() {
    const CONSUMERS: usize = 6;
    const ROWS: u64 = 60;
    for locking in [Locking::Unordered, Locking::Ordered] {
        let database = database().await;
        insert(&database, "a", 0..ROWS).await;
        let consumers: Vec<_> = (0..CONSUMERS)
            .map(|_| {
                let url = database.url();
                tokio::spawn(async move {
                    let tables = pgqueue_postgres::PgTables::<C>::new(C::of(&url, 3));
                    // Rows are marked, so that their counts stay to be seen.
                    let mark = "update messages set subscription = 'done' where id = any($1)";
                    let query = counted::<C>(locking).with_ok(mark).with_max_deliveries(1);
                    let mut stream = consume(tables.query(query)).await;
                    loop {
                        next(&mut stream).await.ok().await.unwrap();
                    }
                })
            })
            .collect();
        until_sql(&database, "select count(*) from messages where subscription = 'done'", &ROWS.to_string()).await;
        consumers.iter().for_each(tokio::task::JoinHandle::abort);
        let counts = database.sql("select string_agg(distinct deliveries::text, ',') from messages").await.unwrap();
        assert_eq!(counts, "1", "{locking:?}");
    }
}

async fn ordered_waiters_do_not_count<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..1).await;
    let mut first = consume(tables.query(counted::<C>(Locking::Ordered))).await;
    let held = next(&mut first).await;
    let mut waiters = Vec::new();
    for _ in 0..3 {
        let mut stream = consume(tables.query(counted::<C>(Locking::Ordered))).await;
        waiters.push(tokio::spawn(async move { payload(&next(&mut stream).await) }));
    }
    until_sql(&database, WAITS, "3").await;
    assert_eq!(database.sql("select deliveries from messages").await.unwrap(), "1");
    drop((held, first));
    let mut seen = HashMap::new();
    for waiter in waiters {
        // One after the other, each drops it and ends.
        *seen.entry(patiently("a waiter", waiter).await.unwrap()).or_insert(0) += 1;
    }
    assert_eq!(seen["0"], 3);
    assert_eq!(database.sql("select deliveries from messages").await.unwrap(), "4");
}

async fn count_is_read_from_a_column<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..1).await;
    let base = "select id, payload, deliveries + 1 as attempt from messages";
    let query = PendingQuery::new("messages", base)
        .with_columns(pgqueue_postgres::Columns::new().with_attempt("attempt"))
        .with_ok("delete from messages where id = any($1)")
        .with_requeue("update messages set deliveries = deliveries + 1 where id = any($1)");
    let mut stream = consume(tables.query(query)).await;
    for attempt in 1..=3 {
        let delivery = next(&mut stream).await;
        assert_eq!(delivery.message().attempt(), attempt);
        delivery.requeue().await.unwrap();
    }
}
