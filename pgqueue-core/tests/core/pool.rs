//! A pool of workers: how it starts, shares its messages, stops, ends and is dropped.

use std::{
    future::{Future, pending},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::{FutureExt, poll};
use pgqueue_core::{
    Ack, BoxError, ConsumeStream, ErrorKind, Job, MessageId, NewMessage, Operation, Order, PoolState, PoolStatus,
    PoolStop, Publisher, PublisherExt, Result, Subscription, SubscriptionDriver, Topic, Worker, WorkerPool,
};
use pgqueue_memory::{MemoryQueue, MemorySubscription};
use tokio::{
    runtime::Builder,
    time::{Instant, sleep, timeout},
};

use crate::{
    script::{Script, idle, seconds},
    store::Event::*,
};

/// A queue with topic `t` and subscription `s`.
pub(crate) async fn queue(order: Order) -> MemoryQueue {
    let queue = MemoryQueue::new();
    queue.create_topic(Topic::new("t")).await.unwrap();
    queue.insert_subscription(&subscription(order)).await.unwrap();
    queue
}

fn subscription(order: Order) -> Subscription {
    Subscription::new("s", "t").with_order(order)
}

/// Makes consumers of `s`.
pub(crate) fn consumers(queue: &MemoryQueue, order: Order) -> impl Fn() -> MemorySubscription + Send + Sync + use<> {
    let queue = queue.clone();
    move || queue.subscription(subscription(order))
}

/// Publishes 0, 1, 2 and so on.
pub(crate) async fn publish(queue: &MemoryQueue, count: u32) -> Vec<MessageId> {
    queue.publish("t", (0..count).map(|number| NewMessage::json(&number).unwrap()).collect()).await.unwrap()
}

/// What was acked, each with its number of attempts, in order.
pub(crate) fn acked(queue: &MemoryQueue) -> Vec<(u32, u32)> {
    let acked = queue.acked("s").unwrap();
    let mut acked: Vec<_> = acked.iter().map(|message| (message.json().unwrap(), message.attempt())).collect();
    acked.sort_unstable();
    acked
}

/// Everything below `count` was acked once, at the first attempt.
pub(crate) fn all_once(count: u32) -> Vec<(u32, u32)> {
    (0..count).map(|number| (number, 1)).collect()
}

/// Waits for what must happen, by the paused clock for no more than an hour.
pub(crate) async fn soon<T>(happens: impl Future<Output = T>) -> T {
    timeout(seconds(60 * 60), happens).await.unwrap()
}

/// Handles one message at a time, each for ten seconds.
pub(crate) async fn work_slowly(stream: ConsumeStream<PoolStop>) -> Result<()> {
    let handler = async |_: Job<u32>| {
        sleep(seconds(10)).await;
        Ok::<_, BoxError>(Ack::Ok)
    };
    Worker::new(stream, handler).with_concurrency(1).run().await
}

/// A pool of slow workers.
pub(crate) fn slow_pool(queue: &MemoryQueue) -> WorkerPool {
    WorkerPool::new(consumers(queue, Order::Unordered), work_slowly)
}

fn stands(status: PoolStatus) -> (PoolState, usize, usize) {
    (status.state, status.size, status.workers)
}

#[tokio::test(start_paused = true)]
async fn a_pool_starts_as_many_workers_as_it_is_told() {
    let queue = queue(Order::Unordered).await;
    for (pool, size) in [(slow_pool(&queue), 1), (slow_pool(&queue).with_size(7), 7)] {
        assert_eq!(stands(pool.status()), (PoolState::Stopped, size, 0));
        pool.start().await.unwrap();
        idle().await;
        assert_eq!(stands(pool.status()), (PoolState::Running, size, size));
        assert_eq!(queue.listeners("s").unwrap(), size);

        soon(pool.stop()).await.unwrap();
        assert_eq!(stands(pool.status()), (PoolState::Stopped, size, 0));
        assert_eq!(queue.listeners("s").unwrap(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn starting_twice_is_reported_and_the_pool_goes_on() {
    let queue = queue(Order::Unordered).await;
    let pool = slow_pool(&queue).with_size(2);
    pool.start().await.unwrap();
    for _ in 0..2 {
        let error = pool.start().await.unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::Conflict, "the pool runs already".into()));
        idle().await;
    }

    let ids = publish(&queue, 4).await;
    soon(queue.wait_acked("s", &ids[3])).await.unwrap();
    assert_eq!(stands(pool.status()), (PoolState::Running, 2, 2));
}

#[tokio::test(start_paused = true)]
async fn of_two_starts_at_once_one_is_reported() {
    let slowly = || sleep(seconds(1)).map(Ok);
    let store = Script::default().insert(slowly()).insert(slowly()).store();
    let driver = store.clone();
    let pool = WorkerPool::new(move || driver.clone(), work_slowly);
    let (first, second) = tokio::join!(pool.start(), pool.start());
    assert!(first.is_ok() || second.is_ok());
    assert_eq!(first.and(second).unwrap_err().kind(), ErrorKind::Conflict);
    idle().await;
    assert_eq!(store.events(), [Insert, Insert, Insert, Listen, Fetch], "there is one worker");
    pool.start().await.unwrap_err();
    assert_eq!(store.events(), [], "the driver is not asked");
}

#[tokio::test(start_paused = true)]
async fn starting_a_pool_that_still_stops_is_reported() {
    let queue = queue(Order::Unordered).await;
    let pool = slow_pool(&queue);
    publish(&queue, 1).await;
    pool.start().await.unwrap();
    idle().await;
    assert!(pool.stop().now_or_never().is_none());
    idle().await;
    assert_eq!(stands(pool.status()), (PoolState::Stopping, 1, 1));
    assert_eq!(pool.start().await.unwrap_err().kind(), ErrorKind::Conflict);
    soon(pool.wait()).await.unwrap();
    assert_eq!(acked(&queue), all_once(1));
}

#[tokio::test(start_paused = true)]
async fn stopping_twice_is_fine_and_so_is_stopping_what_never_ran() {
    let queue = queue(Order::Unordered).await;
    let pool = slow_pool(&queue);
    soon(pool.wait()).await.unwrap();
    soon(pool.stop()).await.unwrap();
    pool.start().await.unwrap();
    let (first, second, waited) = soon(async { tokio::join!(pool.stop(), pool.stop(), pool.wait()) }).await;
    first.and(second).and(waited).unwrap();
    soon(pool.stop()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_what_is_in_flight_and_nothing_new_begins() {
    let queue = queue(Order::Unordered).await;
    let pool = slow_pool(&queue).with_size(2);
    publish(&queue, 4).await;
    pool.start().await.unwrap();
    sleep(seconds(1)).await;
    assert_eq!(queue.in_flight("s").unwrap().len(), 2);

    let asked = Instant::now();
    soon(pool.stop()).await.unwrap();
    assert_eq!(asked.elapsed().as_secs(), 9);
    assert_eq!(acked(&queue), all_once(2));
    assert!(queue.pending("s").unwrap().iter().all(|message| message.attempt() == 0));
}

#[tokio::test(start_paused = true)]
async fn a_pool_stops_also_if_nobody_waits_for_that() {
    let queue = queue(Order::Unordered).await;
    let pool = slow_pool(&queue);
    pool.start().await.unwrap();
    idle().await;
    assert!(pool.stop().now_or_never().is_none());
    soon(pool.wait()).await.unwrap();
    assert_eq!(queue.listeners("s").unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_workers_that_still_subscribe() {
    let store = Script::default().insert(async { Ok(()) }).insert(pending()).store();
    let pool = WorkerPool::new(move || store.clone(), work_slowly);
    pool.start().await.unwrap();
    idle().await;
    let asked = Instant::now();
    soon(pool.stop()).await.unwrap();
    assert_eq!(asked, Instant::now());
}

#[tokio::test(start_paused = true)]
async fn a_pool_can_be_started_again() {
    let queue = queue(Order::Unordered).await;
    let pool = slow_pool(&queue).with_size(2);
    publish(&queue, 6).await;
    for handled in [2, 4, 6] {
        pool.start().await.unwrap();
        idle().await;
        soon(pool.stop()).await.unwrap();
        assert_eq!(acked(&queue), all_once(handled));
    }
}

#[tokio::test(start_paused = true)]
async fn each_message_goes_to_one_worker_and_every_worker_gets_some() {
    let queue = queue(Order::Unordered).await;
    let handled_by = Arc::new([const { Mutex::new(Vec::new()) }; 4]);
    let workers = AtomicUsize::new(0);
    let seen = Arc::clone(&handled_by);
    let pool = WorkerPool::new(consumers(&queue, Order::Unordered), move |stream| {
        let (seen, worker) = (Arc::clone(&seen), workers.fetch_add(1, Ordering::Relaxed));
        let handler = move |job: Job<u32>| {
            seen[worker].lock().unwrap().push(job.value);
            sleep(seconds(1)).map(|()| Ok::<_, BoxError>(Ack::Ok))
        };
        Worker::new(stream, handler).run()
    });
    let pool = pool.with_size(4);
    pool.start().await.unwrap();
    publish(&queue, 400).await;
    soon(queue.idle("s")).await;
    soon(pool.stop()).await.unwrap();

    let shares: Vec<_> = handled_by.iter().map(|share| share.lock().unwrap().clone()).collect();
    assert!(shares.iter().all(|share| share.len() >= 50), "{shares:?}");
    let mut handled = shares.concat();
    handled.sort_unstable();
    assert_eq!(handled, (0..400).collect::<Vec<_>>());
    assert_eq!(acked(&queue), all_once(400));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_ends_by_itself_ends_the_pool_gracefully() {
    let queue = queue(Order::Unordered).await;
    let runs = AtomicUsize::new(0);
    let pool = WorkerPool::new(consumers(&queue, Order::Unordered), move |stream| {
        let ends = runs.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            if ends {
                sleep(seconds(3)).await;
                return Ok(());
            }
            work_slowly(stream).await
        }
    });
    let pool = pool.with_size(3);
    publish(&queue, 9).await;
    let started = Instant::now();
    pool.start().await.unwrap();
    soon(pool.wait()).await.unwrap();
    assert_eq!(started.elapsed().as_secs(), 10);
    assert_eq!(acked(&queue), all_once(2));
    let status = pool.status();
    assert_eq!((stands(status), status.crashes), ((PoolState::Stopped, 3, 0), 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_published_after_the_start_is_kept_for_the_workers() {
    let queue = MemoryQueue::new();
    queue.create_topic(Topic::new("t")).await.unwrap();
    let pool = slow_pool(&queue);
    pool.start().await.unwrap();
    let id = queue.publish_json("t", &0).await.unwrap();
    soon(queue.wait_acked("s", &id)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_start_reports_what_the_driver_says_and_starts_nothing() {
    let queue = MemoryQueue::new();
    let pool = slow_pool(&queue);
    let error = pool.start().await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::NotFound, Some(Operation::Insert)));
    assert_eq!(pool.status().state, PoolState::Stopped);

    queue.create_topic(Topic::new("t")).await.unwrap();
    pool.start().await.unwrap();

    let broken = WorkerPool::new(|| -> MemorySubscription { panic!("boom") }, work_slowly);
    let error = broken.start().await.unwrap_err();
    assert_eq!(error.to_string(), "inserting the subscription: panicked: boom");
}

#[tokio::test(start_paused = true)]
async fn impossible_pools_are_refused_before_anything_starts() {
    let store = Script::default().store();
    let driver = store.clone();
    let pool = move || {
        let driver = driver.clone();
        WorkerPool::new(move || driver.clone(), work_slowly)
    };
    for pool in [pool().with_size(0), pool().with_restarts(10, seconds(0))] {
        assert_eq!(pool.start().await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert_eq!(store.events(), []);
}

#[tokio::test(start_paused = true)]
async fn dropping_a_pool_requeues_what_its_workers_held() {
    let queue = queue(Order::Unordered).await;
    let pool = slow_pool(&queue).with_size(3);
    publish(&queue, 5).await;
    pool.start().await.unwrap();
    idle().await;
    assert_eq!(queue.in_flight("s").unwrap().len(), 3);

    drop(pool);
    idle().await;
    assert_eq!((queue.in_flight("s").unwrap().len(), queue.pending("s").unwrap().len()), (0, 5));
    assert_eq!(queue.listeners("s").unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn dropping_a_pool_that_stops_requeues_what_its_workers_held() {
    let queue = queue(Order::Unordered).await;
    let pool = slow_pool(&queue);
    publish(&queue, 1).await;
    pool.start().await.unwrap();
    idle().await;
    let mut stopping = Box::pin(pool.stop());
    assert!(poll!(&mut stopping).is_pending());
    idle().await;
    drop(stopping);
    drop(pool);
    idle().await;
    assert_eq!(queue.pending("s").unwrap().len(), 1);
}

#[test]
fn a_pool_whose_runtime_has_shut_down_has_failed_and_can_be_started_on_another() {
    let runtime = || Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let (first, second) = (runtime(), runtime());
    let queue = first.block_on(queue(Order::Unordered));
    let pool = slow_pool(&queue);
    first.block_on(async {
        pool.start().await.unwrap();
        idle().await;
    });
    drop(first);
    assert_eq!(stands(pool.status()), (PoolState::Failed, 1, 0));
    second.block_on(async {
        assert_eq!(soon(pool.wait()).await.unwrap_err().kind(), ErrorKind::Fatal);
        pool.start().await.unwrap();
        idle().await;
        assert_eq!(stands(pool.status()), (PoolState::Running, 1, 1));
        soon(pool.stop()).await.unwrap();
    });
}

#[test]
fn starting_a_pool_outside_of_a_runtime_is_an_error() {
    let pool = WorkerPool::new(|| MemoryQueue::new().subscription(subscription(Order::Unordered)), work_slowly);
    assert!(pool.start().now_or_never().unwrap().is_err());
}

#[test]
fn a_pool_is_shared_between_threads_and_any_driver_will_do() {
    fn is_shared<T: Send + Sync + 'static>(_: &T) {}
    fn is_send<T: Send>(_: T) {}
    let driver = || -> Arc<dyn SubscriptionDriver> { panic!("never called") };
    let pool = WorkerPool::new(driver, async |_: ConsumeStream<PoolStop>| Ok(()));
    is_shared(&pool);
    is_send(pool.start());
    is_send(pool.stop());
    is_send(pool.wait());
}
