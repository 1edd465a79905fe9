//! Nothing that comes is slept through: these consumers look by themselves once a minute, and no test is as patient as that.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use pgqueue_core::{ConsumeStream, NewMessage, PublisherExt, RetryConfig, Subscription};
use pgqueue_postgres::{Client, ClientError, Options, PgQueue};
use pgqueue_tests::END_LISTENERS;
use pgqueue_testserver::{Database, Proxy};

use crate::{
    backend::Backend,
    between::{Between, Meddle, meddled},
    both_clients::on_both_clients,
    common::{QUIET, consume, invoices, next, publish_number, queue, quiet},
    sleeping::{asleep, rarely_looking},
};

on_both_clients!(
    what_comes_before_it_says_that_it_sleeps_is_not_slept_through,
    what_another_gives_back_wakes,
    what_was_published_before_it_slept_and_commits_after_is_not_slept_through,
    what_an_old_snapshot_publishes_wakes,
    what_is_scheduled_wakes_when_it_is_due,
    what_nobody_heard_of_comes_with_the_reconnection,
    what_nobody_rings_for_comes_by_the_poll,
    who_hears_nothing_any_more_looks_now_and_then,
    who_was_not_rung_for_looks_a_few_times_before_it_sleeps,
    who_was_rung_for_sleeps_again_at_once,
);

/// Long enough that no beat makes anybody look.
const LONG_LEASE: Duration = Duration::from_secs(600);

fn long_leased() -> Subscription {
    invoices().with_lease(LONG_LEASE)
}

/// A consumer that sleeps, and of which publishers know.
async fn sleeper<C: Client>(database: &Database, queue: &PgQueue<C>) -> ConsumeStream {
    let mut stream = consume(&rarely_looking(queue.clone()), long_leased()).await;
    asleep(database, &mut stream).await;
    stream
}

/// Makes a consumer a moment too late: right before it says that it sleeps, somebody publishes.
#[derive(Default)]
struct TooLate {
    published: AtomicBool,
}

#[async_trait]
impl Meddle for TooLate {
    async fn before<C: Client>(&self, client: &C, statement: &str) -> Result<(), ClientError> {
        if statement.contains("pgqueue.arm(") && !self.published.swap(true, Ordering::SeqCst) {
            client.query("select pgqueue.publish('orders', '1')", &[]).await?;
        }
        Ok(())
    }
}

async fn what_comes_before_it_says_that_it_sleeps_is_not_slept_through<C: Client>() {
    let (database, queue) = queue::<C>().await;
    queue.insert_subscription(&long_leased()).await.unwrap();
    publish_number(&queue, 1).await;
    let late = rarely_looking(PgQueue::<Between<C, TooLate>>::connect(&database.url()).await.unwrap());
    let mut stream = consume(&late, long_leased()).await;
    next(&mut stream).await.ok().await.unwrap(); // it begins with work, and has beaten when it goes to sleep
    next(&mut stream).await.ok().await.unwrap();
}

/// Notes what a consumer asks the server for when it looks.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<&'static str>>>);

#[async_trait]
impl Meddle for Asked {
    async fn before<C: Client>(&self, _client: &C, statement: &str) -> Result<(), ClientError> {
        let asked = ["arm", "claim"].into_iter().find(|what| statement.contains(&format!("pgqueue.{what}(")));
        self.0.lock().unwrap().extend(asked);
        Ok(())
    }
}

async fn who_was_rung_for_sleeps_again_at_once<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let asked = Asked::default();
    let mut stream = sleeper(&database, &meddled::<C, _>(&database.url(), asked.clone()).await).await;
    asked.0.lock().unwrap().clear();
    publish_number(&queue, 1).await;
    next(&mut stream).await.ok().await.unwrap();
    asleep(&database, &mut stream).await;
    // It does not look for more before it arms: who is awake is not rung for.
    assert_eq!(asked.0.lock().unwrap()[..3], ["claim", "arm", "claim"]);
}

async fn who_was_not_rung_for_looks_a_few_times_before_it_sleeps<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let silent = queue.with_options(Options::new().with_ringing(false)).unwrap();
    let asked = Asked::default();
    let mut stream = consume(&meddled::<C, _>(&database.url(), asked.clone()).await, long_leased()).await;
    quiet(&mut stream).await;
    asked.0.lock().unwrap().clear();
    publish_number(&silent, 1).await;
    next(&mut stream).await.ok().await.unwrap();
    quiet(&mut stream).await;
    // The next of a publisher that rings for nobody is found so, and not by the pulse seconds later.
    let looks = asked.0.lock().unwrap().iter().filter(|what| **what == "claim").count();
    assert!(looks >= 6, "{looks} looks");
}

async fn what_another_gives_back_wakes<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let mut first = consume(&queue, long_leased()).await;
    publish_number(&queue, 1).await;
    let held = next(&mut first).await;
    let mut second = sleeper(&database, &PgQueue::<C>::connect(&database.url()).await.unwrap()).await;
    drop(held); // and the first asks for nothing
    next(&mut second).await.ok().await.unwrap();
}

async fn what_was_published_before_it_slept_and_commits_after_is_not_slept_through<C: Backend>() {
    let (database, queue) = queue::<C>().await;
    let mut transaction = C::open(&database.url()).await;
    queue.publish_in(&mut transaction, "orders", vec![NewMessage::new("1")]).await.unwrap();
    let mut stream = sleeper(&database, &queue).await;
    C::commit(transaction).await; // it saw nobody to ring for
    next(&mut stream).await.ok().await.unwrap();
}

async fn what_an_old_snapshot_publishes_wakes<C: Backend>() {
    let (database, queue) = queue::<C>().await;
    let mut transaction = C::open(&database.url()).await;
    C::execute(&mut transaction, "set transaction isolation level repeatable read").await;
    C::execute(&mut transaction, "select count(*) from pg_class").await;
    let mut stream = sleeper(&database, &queue).await;
    queue.publish_in(&mut transaction, "orders", vec![NewMessage::new("1")]).await.unwrap();
    C::commit(transaction).await; // it could not see who sleeps
    next(&mut stream).await.ok().await.unwrap();
}

async fn what_is_scheduled_wakes_when_it_is_due<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let mut stream = sleeper(&database, &queue).await;
    queue.publish_one("orders", NewMessage::new("1").with_delay(Duration::from_millis(300))).await.unwrap();
    next(&mut stream).await.ok().await.unwrap();
}

async fn what_nobody_heard_of_comes_with_the_reconnection<C: Client>() {
    let (database, publisher) = queue::<C>().await;
    let proxy = Proxy::start(database.server().port()).await.unwrap();
    let consumer = PgQueue::<C>::connect(&database.url_at(proxy.port())).await.unwrap();
    // Its first statement after that may meet a connection that is dead.
    let mut stream = sleeper(&database, &consumer).await.with_retry(RetryConfig::default());
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

/// Listens once, and counts what is asked.
#[derive(Clone, Default)]
struct Once {
    opened: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

#[async_trait]
impl Meddle for Once {
    fn listens(&self) -> bool {
        !self.opened.swap(true, Ordering::SeqCst)
    }

    async fn before<C: Client>(&self, _client: &C, _statement: &str) -> Result<(), ClientError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

async fn who_hears_nothing_any_more_looks_now_and_then<C: Client>() {
    let (database, publisher) = queue::<C>().await;
    let once = Once::default();
    let queue = meddled::<C, _>(&database.url(), once.clone()).await;
    let mut stream = consume(&queue, invoices()).await;
    asleep(&database, &mut stream).await;
    assert_eq!(database.sql(END_LISTENERS).await.unwrap(), "1");
    quiet(&mut stream).await; // it is told meanwhile
    let before = once.asked.load(Ordering::SeqCst);
    quiet(&mut stream).await;
    let asked = once.asked.load(Ordering::SeqCst) - before;
    assert!(asked < 20, "{asked} statements in {QUIET:?} of an idle consumer");
    publish_number(&publisher, 1).await;
    next(&mut stream).await.ok().await.unwrap();
}
