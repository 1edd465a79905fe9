//! Pools of workers on a real server: what core says of them holds over connections of their own.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use pgqueue_core::{
    Ack, BoxError, ConsumeStream, Error, ErrorKind, Job, NewMessage, Order, PoolState, PoolStop, Publisher, Result,
    Subscription, Worker, WorkerPool,
};
use pgqueue_postgres::{Client, PgQueue, PgSubscription};
use pgqueue_testserver::Database;
use tokio::{
    sync::{Barrier, watch},
    time::sleep,
};

use crate::{
    both_clients::on_both_clients,
    common::{invoices, patiently, publish_number, publish_numbers, queue, until_sql},
};

on_both_clients!(
    each_message_goes_to_one_worker_and_every_worker_gets_some,
    resizing_from_1_to_4_to_2_while_messages_flow_loses_and_doubles_nothing,
    keys_keep_their_order_in_a_pool_of_4,
    workers_that_panic_are_restarted_and_nothing_is_lost,
    a_driver_that_panics_is_made_again,
    starting_twice_is_reported_and_the_pool_goes_on,
    stopping_twice_is_fine_and_what_comes_meanwhile_waits_for_the_next_start,
    a_pool_that_cannot_subscribe_says_so_and_starts_nothing,
    a_deleted_subscription_fails_its_pool_and_is_not_made_again,
);

const WORKERS: usize = 4;

/// How many messages may wait while more are published.
const BACKLOG: usize = 40;

/// What a worker handled.
#[derive(Clone, Debug)]
struct Handled {
    worker: usize,
    number: u64,
    attempt: u32,
}

/// What the workers of a pool handled, in that order.
#[derive(Clone, Default)]
struct Log(Arc<watch::Sender<Vec<Handled>>>);

impl Log {
    fn note(&self, worker: usize, job: &Job<u64>) {
        let handled = Handled { worker, number: job.value, attempt: job.message().attempt() };
        self.0.send_modify(|log| log.push(handled));
    }

    async fn until(&self, what: &str, is_reached: impl FnMut(&Vec<Handled>) -> bool) {
        patiently(what, self.0.subscribe().wait_for(is_reached)).await.unwrap();
    }

    async fn until_count(&self, count: usize) {
        self.until(&format!("{count} messages"), |log| log.len() >= count).await;
    }

    fn workers(handled: &[Handled]) -> BTreeSet<usize> {
        handled.iter().map(|handled| handled.worker).collect()
    }

    /// Checks that all below `count` were handled, each once and at the first attempt, and that nothing is left of them.
    async fn assert_all_once(&self, database: &Database, count: u64) {
        let mut handled: Vec<_> = self.0.borrow().iter().map(|handled| (handled.number, handled.attempt)).collect();
        handled.sort_unstable();
        assert_eq!(handled, (0..count).map(|number| (number, 1)).collect::<Vec<_>>());
        until_sql(database, "select count(*) from pgqueue.lease", "0").await;
    }
}

fn consumers<C: Client>(
    queue: &PgQueue<C>,
    subscription: &Subscription,
) -> impl Fn() -> PgSubscription<C> + Send + Sync + use<C> {
    let (queue, subscription) = (queue.clone(), subscription.clone());
    move || queue.subscription(subscription.clone())
}

/// Handles one message at a time and notes it. Whoever comes `together` with others waits for them at its first.
async fn work(stream: ConsumeStream<PoolStop>, worker: usize, log: Log, together: Option<Arc<Barrier>>) -> Result<()> {
    let is_first = AtomicUsize::new(0);
    let handler = async |job: Job<u64>| {
        if let Some(together) = together.as_ref().filter(|_| is_first.fetch_add(1, Ordering::Relaxed) == 0) {
            together.wait().await;
        }
        log.note(worker, &job);
        Ok::<_, BoxError>(Ack::Ok)
    };
    Worker::new(stream, handler).with_concurrency(1).run().await
}

/// A pool whose workers note what they handle, and begin when so many can.
fn pool<C: Client>(queue: &PgQueue<C>, subscription: &Subscription, log: &Log, together: usize) -> WorkerPool {
    let (log, together) = (log.clone(), (together > 1).then(|| Arc::new(Barrier::new(together))));
    let workers = AtomicUsize::new(0);
    WorkerPool::new(consumers(queue, subscription), move |stream| {
        work(stream, workers.fetch_add(1, Ordering::Relaxed), log.clone(), together.clone())
    })
}

/// So few are taken in advance that all workers get some.
fn shared() -> Subscription {
    invoices().with_prefetch(5)
}

async fn each_message_goes_to_one_worker_and_every_worker_gets_some<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let log = Log::default();
    let pool = pool(&queue, &shared(), &log, WORKERS).with_size(WORKERS);
    pool.start().await.unwrap();
    publish_numbers(&queue, 0..400).await;
    log.until_count(400).await;
    patiently("a stop", pool.stop()).await.unwrap();
    assert_eq!(Log::workers(&log.0.borrow()), (0..WORKERS).collect());
    log.assert_all_once(&database, 400).await;
}

async fn resizing_from_1_to_4_to_2_while_messages_flow_loses_and_doubles_nothing<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let log = Log::default();
    let pool = pool(&queue, &shared(), &log, 1);
    pool.start().await.unwrap();
    let (stop, stopped) = watch::channel(false);
    let publishing = tokio::spawn({
        let (queue, log) = (queue.clone(), log.clone());
        async move {
            let mut published = 0;
            while !*stopped.borrow() {
                publish_numbers(&queue, published..published + 5).await;
                published += 5;
                log.until_count((published as usize).saturating_sub(BACKLOG)).await;
            }
            published
        }
    });

    log.until_count(100).await;
    pool.resize(4).unwrap();
    log.until("four workers", |log| Log::workers(log).len() == 4).await;
    pool.resize(2).unwrap();
    let two = async {
        while pool.status().workers != 2 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    patiently("two workers", two).await;
    let before = log.0.borrow().len();
    log.until_count(before + 200).await;
    stop.send_replace(true);
    let published = publishing.await.unwrap();
    log.until_count(published as usize).await;
    let stayed = Log::workers(&log.0.borrow()[before..]);
    assert!(stayed.len() <= 2, "{stayed:?} still work");
    patiently("a stop", pool.stop()).await.unwrap();
    log.assert_all_once(&database, published).await;
    assert_eq!(pool.status().crashes, 0);
}

async fn keys_keep_their_order_in_a_pool_of_4<C: Client>() {
    const KEYS: u64 = 20;
    let (database, queue) = queue::<C>().await;
    let log = Log::default();
    let pool = pool(&queue, &shared().with_order(Order::ByKey), &log, WORKERS).with_size(WORKERS);
    pool.start().await.unwrap();
    for start in (0..600).step_by(50) {
        let message = |n: u64| NewMessage::json(&n).unwrap().with_key((n % KEYS).to_string());
        queue.publish("orders", (start..start + 50).map(message).collect()).await.unwrap();
    }
    log.until_count(600).await;
    patiently("a stop", pool.stop()).await.unwrap();
    let mut by_key = BTreeMap::<u64, Vec<u64>>::new();
    for handled in log.0.borrow().iter() {
        by_key.entry(handled.number % KEYS).or_default().push(handled.number);
    }
    assert!(by_key.values().all(|numbers| numbers.is_sorted()), "{by_key:?}");
    assert_eq!(Log::workers(&log.0.borrow()), (0..WORKERS).collect());
    log.assert_all_once(&database, 600).await;
}

async fn workers_that_panic_are_restarted_and_nothing_is_lost<C: Client>() {
    const PANICS: usize = 3;
    let (database, queue) = queue::<C>().await;
    let log = Log::default();
    let (runs, noted) = (AtomicUsize::new(0), log.clone());
    let pool = WorkerPool::new(consumers(&queue, &shared()), move |mut stream| {
        let (run, log) = (runs.fetch_add(1, Ordering::Relaxed), noted.clone());
        async move {
            if run < PANICS {
                let held = stream.next().await;
                panic!("with {held:?} in hand");
            }
            work(stream, run, log, None).await
        }
    });
    let pool = pool.with_size(2);
    pool.start().await.unwrap();
    publish_numbers(&queue, 0..100).await;
    log.until_count(100).await;
    assert_eq!((pool.status().state, pool.status().workers), (PoolState::Running, 2));
    // The last that panics may have got none yet.
    publish_numbers(&queue, 100..200).await;
    log.until_count(200).await;
    patiently("a stop", pool.stop()).await.unwrap();

    let mut handled: Vec<_> = log.0.borrow().iter().map(|handled| handled.number).collect();
    handled.sort_unstable();
    assert_eq!(handled, (0..200).collect::<Vec<_>>());
    let again = log.0.borrow().iter().filter(|handled| handled.attempt > 1).count();
    let crashes = pool.status().crashes;
    assert!((1..=PANICS as u64).contains(&crashes), "{crashes} crashes");
    assert!((1..=PANICS).contains(&again), "{again} came again after {crashes} crashes");
    until_sql(&database, "select count(*) from pgqueue.lease", "0").await;
}

async fn a_driver_that_panics_is_made_again<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let log = Log::default();
    let (drivers, consumer, noted) = (AtomicUsize::new(0), consumers(&queue, &shared()), log.clone());
    let driver = move || {
        assert!(![1, 2].contains(&drivers.fetch_add(1, Ordering::Relaxed)), "boom"); // the first is that of the start
        consumer()
    };
    let pool = WorkerPool::new(driver, move |stream| work(stream, 0, noted.clone(), None));
    pool.start().await.unwrap();
    publish_numbers(&queue, 0..10).await;
    log.until_count(10).await;
    assert_eq!((pool.status().state, pool.status().crashes), (PoolState::Running, 2));
    patiently("a stop", pool.stop()).await.unwrap();
    log.assert_all_once(&database, 10).await;
}

async fn starting_twice_is_reported_and_the_pool_goes_on<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let log = Log::default();
    let pool = pool(&queue, &shared(), &log, 1).with_size(2);
    pool.start().await.unwrap();
    for round in 0..3 {
        publish_number(&queue, round).await;
        let error = pool.start().await.unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::Conflict, "the pool runs already".into()));
        log.until_count(round as usize + 1).await;
    }
    assert_eq!((pool.status().state, pool.status().workers), (PoolState::Running, 2));
    patiently("a stop", pool.stop()).await.unwrap();
    log.assert_all_once(&database, 3).await;
}

async fn stopping_twice_is_fine_and_what_comes_meanwhile_waits_for_the_next_start<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let log = Log::default();
    let pool = pool(&queue, &shared(), &log, 1).with_size(2);
    patiently("a stop of what never ran", pool.stop()).await.unwrap();
    for round in 0..3 {
        publish_numbers(&queue, if round == 0 { 0..0 } else { 10 * round - 5..10 * round }).await;
        pool.start().await.unwrap();
        publish_numbers(&queue, 10 * round..10 * round + 5).await; // at once
        log.until_count(10 * round as usize + 5).await;
        let (first, second) = patiently("two stops", async { tokio::join!(pool.stop(), pool.stop()) }).await;
        first.and(second).unwrap();
        patiently("a third", pool.stop()).await.unwrap();
        assert_eq!((pool.status().state, pool.status().workers), (PoolState::Stopped, 0));
    }
    log.assert_all_once(&database, 25).await;
    patiently("consumers that are gone", queue.consumers_gone()).await;
    until_sql(&database, "select count(*) from pgqueue.owner", "0").await;
}

async fn a_pool_that_cannot_subscribe_says_so_and_starts_nothing<C: Client>() {
    let (_database, queue) = queue::<C>().await;
    let log = Log::default();
    let pool = pool(&queue, &Subscription::new("invoices", "nowhere"), &log, 1);
    assert_eq!(pool.start().await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!((pool.status().state, pool.status().workers), (PoolState::Stopped, 0));
    assert_eq!(queue.listener().subscribers(), 0);
}

async fn a_deleted_subscription_fails_its_pool_and_is_not_made_again<C: Client>() {
    let (_database, queue) = queue::<C>().await;
    let log = Log::default();
    let pool = pool(&queue, &shared(), &log, 1).with_size(2);
    pool.start().await.unwrap();
    publish_number(&queue, 0).await;
    log.until_count(1).await;
    queue.delete_subscription("invoices").await.unwrap();
    let failed = patiently("a failure", pool.wait()).await.unwrap_err();
    assert_eq!((failed.kind(), pool.status().state), (ErrorKind::Fatal, PoolState::Failed));
    let crash = failed.source().unwrap().downcast_ref::<Error>().unwrap();
    assert_eq!(crash.kind(), ErrorKind::NotFound);
    assert_eq!(patiently("a stop", pool.stop()).await.unwrap_err().kind(), ErrorKind::Fatal, "it is still failed");
    assert!(queue.subscriptions().await.unwrap().is_empty());
}
