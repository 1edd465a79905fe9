//! For whom publishers ring, and how often: a notification costs all who publish, as PostgreSQL commits one of those at a time that
//! notify. What is counted here holds however fast anybody is.

use std::time::Duration;

use futures::{StreamExt, channel::mpsc, future::join_all, stream};
use pgqueue_core::{NewMessage, Order, PublisherExt};
use pgqueue_postgres::{Client, Options, PgQueue};
use pgqueue_testserver::Database;
use tokio_postgres::{AsyncMessage, NoTls, Notification};

use crate::{
    backend::Backend,
    both_clients::on_both_clients,
    common::{consume, invoices, next, number, patiently, publish_number, publish_numbers, queue, until_sql},
    sleeping::{RARELY, asleep, rarely_looking},
};

on_both_clients!(
    nobody_is_rung_for_where_nobody_sleeps,
    who_is_busy_is_not_rung_for,
    who_goes_on_with_a_lane_rings_for_nobody,
    of_many_that_publish_at_once_one_rings,
    a_transaction_rings_once_however_much_it_publishes,
    nobody_rings_while_the_servers_queue_is_half_full,
);

/// How many publish at once, on pools of so many connections each.
const POOLS: usize = 3;
const PUBLISHERS: usize = 8;

/// What ends a count.
const FENCE: &str = "fence";

/// Hears who is rung for, as a consumer would, without being one that sleeps.
struct Rings {
    client: tokio_postgres::Client,
    heard: mpsc::UnboundedReceiver<Notification>,
}

impl Rings {
    async fn of(database: &Database) -> Self {
        let (client, mut connection) = tokio_postgres::connect(&database.url(), NoTls).await.unwrap();
        let (hears, heard) = mpsc::unbounded();
        tokio::spawn(async move {
            let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
            while let Some(Ok(message)) = messages.next().await {
                if let AsyncMessage::Notification(notification) = message {
                    hears.unbounded_send(notification).ok(); // the test is over
                }
            }
        });
        let channel =
            database.sql("select pgqueue.channel(id) from pgqueue.topic where name = 'orders'").await.unwrap();
        client.batch_execute(&format!("listen {channel}; listen {FENCE}")).await.unwrap();
        Self { client, heard }
    }

    /// How often somebody rang since the last count, by all that is committed.
    async fn count(&mut self) -> usize {
        self.client.batch_execute(&format!("notify {FENCE}")).await.unwrap();
        let mut count = 0;
        while patiently("a notification", self.heard.next()).await.unwrap().channel() != FENCE {
            count += 1;
        }
        count
    }
}

/// Publishes so many by several publishers, one by one.
async fn publish_singly<C: Client>(queue: &PgQueue<C>, each: u64) {
    join_all((0..PUBLISHERS as u64).map(|publisher| async move {
        for n in 0..each {
            publish_number(queue, publisher * each + n).await;
        }
    }))
    .await;
}

async fn nobody_is_rung_for_where_nobody_sleeps<C: Backend>() {
    let (database, queue) = queue::<C>().await;
    queue.insert_subscription(&invoices()).await.unwrap();
    let mut rings = Rings::of(&database).await;
    publish_singly(&queue, 25).await;
    publish_numbers(&queue, 0..100).await;
    let mut transaction = C::open(&database.url()).await;
    queue.publish_in(&mut transaction, "orders", vec![NewMessage::new("1")]).await.unwrap();
    C::commit(transaction).await;
    queue.publish_one("orders", NewMessage::new("1").with_delay(Duration::ZERO)).await.unwrap();
    queue.maintain().await.unwrap(); // what was scheduled enters the log
    assert_eq!(rings.count().await, 0);
}

async fn who_is_busy_is_not_rung_for<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let queue = rarely_looking(queue);
    let mut stream = consume(&queue, invoices().with_lease(RARELY).with_prefetch(1)).await;
    asleep(&database, &mut stream).await;
    let mut rings = Rings::of(&database).await;
    publish_number(&queue, 1000).await;
    let held = next(&mut stream).await;
    assert_eq!(rings.count().await, 1, "it was asleep");
    // It has its hands full, and said that it is awake when it took the message.
    publish_singly(&queue, 6).await;
    assert_eq!(rings.count().await, 0);
    held.ok().await.unwrap();
    let mut numbers = Vec::new();
    for _ in 0..6 * PUBLISHERS {
        let delivery = next(&mut stream).await;
        numbers.push(number(&delivery));
        delivery.ok().await.unwrap();
    }
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..6 * PUBLISHERS as u64));
    // And what it missed no ring for keeps nobody from ringing when it sleeps again.
    asleep(&database, &mut stream).await;
    publish_number(&queue, 1001).await;
    next(&mut stream).await.ok().await.unwrap();
    assert_eq!(rings.count().await, 1);
}

/// Another consumer sleeps meanwhile, which would find the lane in hand.
async fn who_goes_on_with_a_lane_rings_for_nobody<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let queue = rarely_looking(queue);
    let subscription = invoices().with_order(Order::Total).with_lease(RARELY);
    let mut stream = consume(&queue, subscription.clone()).await;
    publish_numbers(&queue, 0..5).await;
    let mut held = next(&mut stream).await;
    let mut other = consume(&queue, subscription).await;
    asleep(&database, &mut other).await;
    let mut rings = Rings::of(&database).await;
    for n in 1..5 {
        held.ok().await.unwrap();
        held = next(&mut stream).await;
        assert_eq!(number(&held), n);
    }
    assert_eq!(rings.count().await, 0, "the lane was never free");
    drop(stream);
    held.ok().await.unwrap();
    assert!(rings.count().await > 0, "it is, and who had it will not look");
}

/// Makes all that publish wait in their commits while the test holds the lock.
const HELD_UP: &str = "
    create function hold_up() returns trigger language plpgsql as
        $$ begin perform pg_advisory_xact_lock_shared(4711); return null; end $$;
    create constraint trigger hold_up after insert on pgqueue.log deferrable initially deferred
        for each row execute function hold_up();";
const WAITING: &str = "
    select count(*) from pg_locks
    where locktype = 'advisory' and not granted and database = (select oid from pg_database where datname = current_database())";

async fn of_many_that_publish_at_once_one_rings<C: Backend>() {
    let (database, queue) = queue::<C>().await;
    let queue = rarely_looking(queue);
    let mut stream = consume(&queue, invoices().with_lease(RARELY)).await;
    asleep(&database, &mut stream).await;
    let mut rings = Rings::of(&database).await;
    database.sql(HELD_UP).await.unwrap();
    let mut holder = C::open(&database.url()).await;
    C::execute(&mut holder, "select pg_advisory_xact_lock(4711)").await;
    let mut publishers = Vec::new();
    for pool in 0..POOLS {
        let patient = Options::new().with_time_limit(RARELY);
        let queue = PgQueue::<C>::connect(&database.url()).await.unwrap().with_options(patient).unwrap();
        publishers.extend((0..PUBLISHERS).map(|n| {
            let queue = queue.clone();
            tokio::spawn(async move { publish_number(&queue, (pool * PUBLISHERS + n) as u64).await })
        }));
    }
    let all = publishers.len();
    // All of them have looked for sleepers, and none has committed.
    until_sql(&database, WAITING, &all.to_string()).await;
    C::rollback(holder).await;
    for publisher in publishers {
        publisher.await.unwrap();
    }
    assert_eq!(rings.count().await, 1);
    for _ in 0..all {
        next(&mut stream).await.ok().await.unwrap();
    }
}

async fn a_transaction_rings_once_however_much_it_publishes<C: Backend>() {
    let (database, queue) = queue::<C>().await;
    let queue = rarely_looking(queue);
    let mut stream = consume(&queue, invoices().with_lease(RARELY)).await;
    asleep(&database, &mut stream).await;
    let mut rings = Rings::of(&database).await;
    let silent = queue.clone().with_options(queue.options().clone().with_ringing(false)).unwrap();
    publish_numbers(&silent, 0..10).await;
    assert_eq!(rings.count().await, 0, "this one does not ring");
    let mut transaction = C::open(&database.url()).await;
    for n in 0..20 {
        let messages = (0..10).map(|m| NewMessage::json(&(10 * n + m)).unwrap()).collect();
        queue.publish_in(&mut transaction, "orders", messages).await.unwrap();
    }
    C::commit(transaction).await;
    assert_eq!(rings.count().await, 1);
    for _ in 0..210 {
        next(&mut stream).await.ok().await.unwrap();
    }
}

/// Half of a real queue is 4 GB: in this database the server says of itself what the test wants.
const SAID_USAGE: &str = "
    create table said (usage float8);
    insert into said values (0.6);
    alter function pg_catalog.pg_notification_queue_usage() rename to real_notification_queue_usage;
    create function pg_catalog.pg_notification_queue_usage() returns float8 language sql as 'select usage from public.said'";

async fn nobody_rings_while_the_servers_queue_is_half_full<C: Client>() {
    let (database, _queue) = queue::<C>().await;
    database.sql(SAID_USAGE).await.unwrap();
    let queue = PgQueue::<C>::connect(&database.url()).await.unwrap();
    let mut stream = consume(&queue, invoices().with_lease(10 * RARELY)).await; // no beat makes it look
    asleep(&database, &mut stream).await;
    let mut rings = Rings::of(&database).await;
    publish_singly(&queue, 5).await;
    assert_eq!(rings.count().await, 0);
    for _ in 0..5 * PUBLISHERS {
        next(&mut stream).await.ok().await.unwrap(); // by the poll
    }
    database.sql("update said set usage = 0.4").await.unwrap();
    let queue = rarely_looking(queue);
    drop(stream);
    let mut stream = consume(&queue, invoices().with_lease(RARELY)).await;
    asleep(&database, &mut stream).await;
    publish_number(&queue, 1).await;
    next(&mut stream).await.ok().await.unwrap();
    assert_eq!(rings.count().await, 1, "there is room again");
}
