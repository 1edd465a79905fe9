//! Nothing that comes is slept through: these consumers look by themselves once a minute, and no test is as patient as that.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use pgqueue_core::{ConsumeStream, NewMessage, PublisherExt, RetryConfig, Subscription};
use pgqueue_postgres::{Client, ClientError, ListenerConnection, Options, Parameter, PgQueue};
use pgqueue_testserver::{Database, Proxy};

use crate::{
    backend::Backend,
    both_clients::on_both_clients,
    common::{consume, invoices, next, publish_number, queue, quiet, until_sql, url_through},
};

on_both_clients!(
    what_comes_before_it_says_that_it_sleeps_is_not_slept_through,
    what_another_gives_back_wakes,
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

/// A client whose consumer is a moment too late: right before it says that it sleeps, somebody publishes.
struct TooLate<C> {
    client: C,
    published: AtomicBool,
}

#[async_trait]
impl<C: Client> Client for TooLate<C> {
    type Row = C::Row;
    type Transaction = C::Transaction;

    async fn connect(url: &str) -> Result<Self, ClientError> {
        Ok(Self { client: C::connect(url).await?, published: AtomicBool::new(false) })
    }

    async fn query(&self, statement: &str, parameters: &[Parameter]) -> Result<Vec<C::Row>, ClientError> {
        if statement.contains("pgqueue.arm(") && !self.published.swap(true, Ordering::SeqCst) {
            self.client.query("select pgqueue.publish('orders', '1')", &[]).await?;
        }
        self.client.query(statement, parameters).await
    }

    async fn run_script(&self, script: &str) -> Result<(), ClientError> {
        self.client.run_script(script).await
    }

    async fn begin(&self) -> Result<C::Transaction, ClientError> {
        self.client.begin().await
    }

    fn max_connections(&self) -> usize {
        self.client.max_connections()
    }

    async fn open_listener(&self) -> Result<Option<Box<dyn ListenerConnection>>, ClientError> {
        self.client.open_listener().await
    }
}

async fn what_comes_before_it_says_that_it_sleeps_is_not_slept_through<C: Client>() {
    let (database, queue) = queue::<C>().await;
    queue.insert_subscription(&long_leased()).await.unwrap();
    publish_number(&queue, 1).await;
    let rarely = Options::new().with_poll_interval(RARELY);
    let late = PgQueue::<TooLate<C>>::connect(&database.url()).await.unwrap().with_options(rarely).unwrap();
    let mut stream = consume(&late, long_leased()).await;
    next(&mut stream).await.ok().await.unwrap(); // it begins with work, and has beaten when it goes to sleep
    next(&mut stream).await.ok().await.unwrap();
}

async fn what_another_gives_back_wakes<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let mut first = consume(&queue, long_leased()).await;
    publish_number(&queue, 1).await;
    let held = next(&mut first).await;
    let mut second = asleep(&database, &PgQueue::<C>::connect(&database.url()).await.unwrap()).await;
    drop(held); // and the first asks for nothing
    next(&mut second).await.ok().await.unwrap();
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
