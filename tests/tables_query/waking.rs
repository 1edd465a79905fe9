//! What makes an idle consumer look: each reason is enough.

use std::time::Duration;

use futures::StreamExt;
use pgqueue_core::subscribe;
use pgqueue_postgres::{Client, Locking};
use tokio::time::timeout;

use crate::{
    both_clients::on_both_clients,
    common::{next, patiently, quiet},
    table::{consume, database, insert, messages, payload, tables},
};

on_both_clients!(
    notification_wakes,
    poll_finds_what_nobody_announced,
    what_becomes_due_is_found_when_it_does,
    connection_that_is_back_wakes,
    subscribing_twice_is_one_subscription,
    what_was_rolled_back_is_never_delivered,
    what_is_left_is_what_waits,
);

const NEVER: Duration = Duration::from_secs(3600);

/// How long a wake-up may take.
const SOON: Duration = Duration::from_secs(2);

async fn notification_wakes<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    let query = messages::<C>("a", Locking::Unordered).with_channel("bell").with_poll_interval(NEVER);
    let mut stream = consume(tables.query(query)).await;
    quiet(&mut stream).await;
    insert(&database, "a", 0..1).await;
    quiet(&mut stream).await;
    database.sql("notify bell").await.unwrap();
    timeout(SOON, stream.next()).await.expect("a wake-up").unwrap().unwrap().ok().await.unwrap();
}

async fn poll_finds_what_nobody_announced<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    let query = messages::<C>("a", Locking::Ordered).with_poll_interval(Duration::from_millis(200));
    let mut stream = consume(tables.query(query)).await;
    quiet(&mut stream).await;
    insert(&database, "a", 0..2).await;
    for expected in ["0", "1"] {
        let delivery = next(&mut stream).await;
        assert_eq!(payload(&delivery), expected);
        delivery.ok().await.unwrap();
    }
}

async fn what_becomes_due_is_found_when_it_does<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..1).await;
    database.sql("update messages set due_at = now() + interval '1 second'").await.unwrap();
    let query = messages::<C>("a", Locking::Unordered)
        .with_next_due("select min(due_at) from messages where subscription = $1")
        .with_poll_interval(NEVER);
    let mut stream = consume(tables.query(query)).await;
    quiet(&mut stream).await;
    let delivery = timeout(SOON, stream.next()).await.expect("what is due").unwrap().unwrap();
    delivery.settle(pgqueue_core::Ack::requeue_after(Duration::from_millis(300))).await.unwrap();
    timeout(SOON, stream.next()).await.expect("what is due again").unwrap().unwrap().ok().await.unwrap();
}

async fn connection_that_is_back_wakes<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    let query = messages::<C>("a", Locking::Unordered).with_channel("bell").with_poll_interval(NEVER);
    let mut stream = consume(tables.query(query)).await;
    quiet(&mut stream).await;
    insert(&database, "a", 0..1).await;
    let listener = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                    where datname = current_database() and query like 'LISTEN%'";
    assert_eq!(database.sql(listener).await.unwrap(), "1");
    patiently("the delivery", stream.next()).await.unwrap().unwrap().ok().await.unwrap();
}

async fn subscribing_twice_is_one_subscription<C: Client>() {
    let database = database().await;
    database.sql("create table subscriptions (name text primary key)").await.unwrap();
    let tables = tables::<C>(&database).await;
    let query = || {
        let insert = pgqueue_postgres::Command::new("insert into subscriptions values ($1)").with_argument("a");
        messages::<C>("a", Locking::Unordered).with_insert(insert)
    };
    for _ in 0..3 {
        drop(patiently("a stream", subscribe(tables.query(query()))).await.unwrap());
    }
    assert_eq!(database.sql("select count(*) from subscriptions").await.unwrap(), "1");
}

async fn what_was_rolled_back_is_never_delivered<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    let mut stream = consume(tables.query(messages::<C>("a", Locking::Unordered))).await;
    database.sql("begin; insert into messages (payload) values ('1'); rollback").await.unwrap();
    quiet(&mut stream).await;
}

async fn what_is_left_is_what_waits<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..3).await;
    let mut stream = consume(tables.query(messages::<C>("a", Locking::Ordered))).await;
    next(&mut stream).await.ok().await.unwrap();
    drop(stream);
    let mut stream = consume(tables.query(messages::<C>("a", Locking::Ordered))).await;
    for expected in ["1", "2"] {
        let delivery = next(&mut stream).await;
        assert_eq!(payload(&delivery), expected);
        delivery.ok().await.unwrap();
    }
    quiet(&mut stream).await;
}
