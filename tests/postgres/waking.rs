//! Nothing that comes is slept through: these consumers look by themselves once a minute, and no test is as patient as that.

use std::time::Duration;

use pgqueue_core::{ConsumeStream, NewMessage, PublisherExt, RetryConfig, Subscription};
use pgqueue_postgres::{Client, Options, PgQueue};
use pgqueue_testserver::{Database, Proxy};

use crate::{
    backend::Backend,
    both_clients::on_both_clients,
    common::{consume, invoices, next, publish_number, queue, quiet, until_sql, url_through},
};

on_both_clients!(
    what_was_published_before_it_slept_and_commits_after_is_not_slept_through,
    what_an_old_snapshot_publishes_wakes,
    what_is_scheduled_wakes_when_it_is_due,
    what_nobody_heard_of_comes_with_the_reconnection,
    what_nobody_rings_for_comes_by_the_poll,
);

const RARELY: Duration = Duration::from_secs(60);

/// Long enough that no beat makes anybody look.
const LONG_LEASE: Duration = Duration::from_secs(600);

fn long_leased() -> Subscription {
    invoices().with_lease(LONG_LEASE)
}

/// A consumer that sleeps, and of which publishers know.
async fn asleep<C: Client>(database: &Database, queue: &PgQueue<C>) -> ConsumeStream {
    let queue = queue.clone().with_options(Options::new().with_poll_interval(RARELY)).unwrap();
    let mut stream = consume(&queue, long_leased()).await;
    quiet(&mut stream).await;
    until_sql(database, "select count(*) from pgqueue.sleeper where armed_until > now()", "1").await;
    quiet(&mut stream).await; // it looked once more after it said so
    stream
}

async fn what_was_published_before_it_slept_and_commits_after_is_not_slept_through<C: Backend>() {
    let (database, queue) = queue::<C>().await;
    let mut transaction = C::open(&database.url()).await;
    queue.publish_in(&mut transaction, "orders", vec![NewMessage::new("1")]).await.unwrap();
    let mut stream = asleep(&database, &queue).await;
    C::commit(transaction).await; // it saw nobody to ring for
    next(&mut stream).await.ok().await.unwrap();
}

async fn what_an_old_snapshot_publishes_wakes<C: Backend>() {
    let (database, queue) = queue::<C>().await;
    let mut transaction = C::open(&database.url()).await;
    C::execute(&mut transaction, "set transaction isolation level repeatable read").await;
    C::execute(&mut transaction, "select count(*) from pg_class").await;
    let mut stream = asleep(&database, &queue).await;
    queue.publish_in(&mut transaction, "orders", vec![NewMessage::new("1")]).await.unwrap();
    C::commit(transaction).await; // it could not see who sleeps
    next(&mut stream).await.ok().await.unwrap();
}

async fn what_is_scheduled_wakes_when_it_is_due<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let mut stream = asleep(&database, &queue).await;
    queue.publish_one("orders", NewMessage::new("1").with_delay(Duration::from_millis(300))).await.unwrap();
    next(&mut stream).await.ok().await.unwrap();
}

async fn what_nobody_heard_of_comes_with_the_reconnection<C: Client>() {
    let (database, publisher) = queue::<C>().await;
    let proxy = Proxy::start(database.server().port()).await.unwrap();
    let consumer = PgQueue::<C>::connect(&url_through(&database, &proxy)).await.unwrap();
    // Its first statement after that may meet a connection that is dead.
    let mut stream = asleep(&database, &consumer).await.with_retry(RetryConfig::default());
    proxy.cut().await;
    publish_number(&publisher, 1).await;
    proxy.restore().await.unwrap();
    next(&mut stream).await.ok().await.unwrap();
}

async fn what_nobody_rings_for_comes_by_the_poll<C: Client>() {
    let (_database, queue) = queue::<C>().await;
    let mut stream = consume(&queue, long_leased()).await;
    let silent = queue.clone().with_options(Options::new().with_ringing(false)).unwrap();
    for number in 0..3 {
        quiet(&mut stream).await;
        publish_number(&silent, number).await;
        next(&mut stream).await.ok().await.unwrap();
    }
}
