//! What makes an idle consumer look: each reason is enough.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use pgqueue_core::{Ack, BoxError, Job, SubscriptionDriver, Worker, subscribe};
use pgqueue_postgres::{Client, Locking, PendingQuery, PgTables, TableWatch};
use pgqueue_tests::END_LISTENERS;
use tokio::{
    sync::{Barrier, Notify},
    time::timeout,
};

use crate::{
    both_clients::on_both_clients,
    common::{QUIET, next, patiently, quiet, until_sql},
    table::{consume, database, insert, messages, payload, tables},
};

on_both_clients!(
    notification_wakes,
    poll_finds_what_nobody_announced,
    what_becomes_due_is_found_when_it_does,
    what_is_overdue_makes_no_noise,
    consumer_that_gives_back_again_and_again_rests,
    connection_that_is_back_wakes,
    triggers_wake_and_are_repaired_by_the_poll,
    triggers_are_repaired_once_the_connection_is_back,
    bulk_insert_is_worked_on_by_as_many_handlers_as_there_may_be,
    poll_that_finds_many_is_worked_on_by_as_many_handlers_as_there_may_be,
    role_without_the_privilege_polls,
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

async fn consumer_that_gives_back_again_and_again_rests<C: Client>() {
    const DELIVERIES: usize = 20;
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..2).await;
    for locking in [Locking::Ordered, Locking::Unordered] {
        let mut stream = consume(tables.query(messages::<C>("a", locking))).await;
        let given_back = async {
            for number in 0.. {
                let delivery = next(&mut stream).await;
                assert!(number < DELIVERIES, "{number} deliveries within {SOON:?}");
                if number % 2 == 0 {
                    drop(delivery);
                } else {
                    delivery.requeue().await.unwrap();
                }
            }
        };
        timeout(SOON, given_back).await.expect_err("it goes on");
        // An answer that is wanted ends the rest.
        next(&mut stream).await.ok().await.unwrap();
        insert(&database, "a", 2..3).await;
        let since = tokio::time::Instant::now();
        next(&mut stream).await.requeue().await.unwrap();
        drop(next(&mut stream).await);
        assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    }
}

/// It is due, and not pending for another reason.
async fn what_is_overdue_makes_no_noise<C: Client>() {
    const NOISE: usize = 50;
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..1).await;
    let query = messages::<C>("b", Locking::Unordered)
        .with_next_due("select min(due_at) from messages")
        .with_poll_interval(NEVER);
    let driver = tables.query(query);
    let wakeups = patiently("listening", driver.listen()).await.unwrap();
    timeout(QUIET, wakeups.take(NOISE).count()).await.expect_err("wake-ups again and again");
}

async fn connection_that_is_back_wakes<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    let query = messages::<C>("a", Locking::Unordered).with_channel("bell").with_poll_interval(NEVER);
    let mut stream = consume(tables.query(query)).await;
    quiet(&mut stream).await;
    insert(&database, "a", 0..1).await;
    assert_eq!(database.sql(END_LISTENERS).await.unwrap(), "1");
    patiently("the delivery", stream.next()).await.unwrap().unwrap().ok().await.unwrap();
}

const TRIGGERS: &str = "select count(*) from pg_trigger where tgname like 'pgqueue%'";

async fn triggers_wake_and_are_repaired_by_the_poll<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    let query = |poll| {
        let watch = TableWatch::new("messages");
        messages::<C>("a", Locking::Unordered).with_watch(watch).with_poll_interval(poll)
    };
    let mut stream = consume(tables.query(query(NEVER))).await;
    quiet(&mut stream).await;
    assert_eq!(database.sql(TRIGGERS).await.unwrap(), "2");
    insert(&database, "a", 0..1).await;
    timeout(SOON, stream.next()).await.expect("a wake-up").unwrap().unwrap().ok().await.unwrap();
    drop(stream);

    let mut stream = consume(tables.query(query(Duration::from_millis(100)))).await;
    quiet(&mut stream).await;
    database.sql("drop trigger pgqueue_insert_pgqueue_messages on messages").await.unwrap();
    quiet(&mut stream).await;
    until_sql(&database, TRIGGERS, "2").await;
}

async fn triggers_are_repaired_once_the_connection_is_back<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    let query = messages::<C>("a", Locking::Unordered).with_watch(TableWatch::new("messages"));
    let mut stream = consume(tables.query(query.with_poll_interval(NEVER))).await;
    quiet(&mut stream).await;
    database.sql("alter table messages disable trigger pgqueue_insert_pgqueue_messages").await.unwrap();
    insert(&database, "a", 0..1).await;
    assert_eq!(database.sql(END_LISTENERS).await.unwrap(), "1");
    next(&mut stream).await.ok().await.unwrap();
    let enabled = "select count(*) from pg_trigger where tgname like 'pgqueue%' and tgenabled = 'O'";
    until_sql(&database, enabled, "2").await;
}

/// Runs handlers that wait for as many others as there may be, and ends once they have met.
async fn meet<C: Client>(query: PendingQuery<C::Row>, tables: &PgTables<C>, rows: impl Future<Output = ()>) {
    const HANDLERS: usize = 4;
    let (meeting, met) = (Arc::new(Barrier::new(HANDLERS)), Arc::new(Notify::new()));
    let handler = |_: Job<u64>| {
        let (meeting, met) = (Arc::clone(&meeting), Arc::clone(&met));
        async move {
            meeting.wait().await;
            met.notify_one();
            std::future::pending::<()>().await;
            Ok::<_, BoxError>(Ack::Ok)
        }
    };
    let stream = consume(tables.query(query)).await;
    let worker = Worker::new(stream, handler).with_concurrency(HANDLERS).run();
    let met = async {
        tokio::time::sleep(QUIET).await; // so that the worker is idle
        rows.await;
        patiently("as many handlers at once", met.notified()).await;
    };
    tokio::select! {
        ended = worker => panic!("the worker should go on, but {ended:?}"),
        () = met => {}
    }
}

async fn bulk_insert_is_worked_on_by_as_many_handlers_as_there_may_be<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    let query = messages::<C>("a", Locking::Unordered).with_watch(TableWatch::new("messages"));
    meet(query.with_poll_interval(NEVER), &tables, insert(&database, "a", 0..10)).await;
}

async fn poll_that_finds_many_is_worked_on_by_as_many_handlers_as_there_may_be<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    let query = messages::<C>("a", Locking::Unordered).with_poll_interval(SOON);
    meet(query, &tables, insert(&database, "a", 0..10)).await;
}

async fn role_without_the_privilege_polls<C: Client>() {
    let database = database().await;
    let role = format!("worker_{}", database.name());
    let grant = "grant select, update, delete on messages to";
    database.sql(&format!("create role {role} login; {grant} {role}")).await.unwrap();
    let tables = PgTables::<C>::connect(&database.url().replace("postgres@", &format!("{role}@"))).await.unwrap();
    let query = messages::<C>("a", Locking::Unordered).with_watch(TableWatch::new("messages"));
    let mut stream = consume(tables.query(query.with_poll_interval(Duration::from_millis(200)))).await;
    quiet(&mut stream).await;
    insert(&database, "a", 0..1).await;
    next(&mut stream).await.ok().await.unwrap();
    drop(stream);
    assert_eq!(database.sql(TRIGGERS).await.unwrap(), "0");
    database.sql(&format!("drop owned by {role}; drop role {role}")).await.unwrap();
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
