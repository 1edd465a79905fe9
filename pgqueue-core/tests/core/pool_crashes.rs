//! Workers of a pool that crash: they are restarted, unless that happens too often.

use std::{
    error::Error as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use pgqueue_core::{
    ConsumeStream, Error, ErrorKind, Order, PoolState, PoolStop, Result, SubscriptionDriver, WorkerPool,
};
use pgqueue_memory::MemoryQueue;
use tokio::time::{Instant, sleep};

use crate::{
    pool::{acked, all_once, consumers, publish, queue, soon, work_slowly},
    script::{Script, fails, fault, idle, seconds},
};

/// A pool whose first runs crash as `crash` does, that often.
fn crashing(
    queue: &MemoryQueue,
    crashes: usize,
    crash: impl Fn(ConsumeStream<PoolStop>) -> BoxFuture<'static, Result<()>> + Send + Sync + 'static,
) -> (WorkerPool, Arc<AtomicUsize>) {
    let runs = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&runs);
    let pool = WorkerPool::new(consumers(queue, Order::Unordered), move |stream| {
        let crashes = count.fetch_add(1, Ordering::Relaxed) < crashes;
        if crashes { crash(stream) } else { Box::pin(work_slowly(stream)) }
    });
    (pool, runs)
}

/// Takes what it can and fails with all of it in hand.
fn fail_in_a_second(stream: ConsumeStream<PoolStop>) -> BoxFuture<'static, Result<()>> {
    Box::pin(async move {
        let working = work_slowly(stream);
        tokio::select! {
            ended = working => ended,
            () = sleep(seconds(1)) => Err(fault(ErrorKind::Connection)),
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_crashed_worker_is_restarted_and_what_it_held_is_handled() {
    let queue = queue(Order::Unordered).await;
    let fails = fail_in_a_second as fn(_) -> BoxFuture<'static, Result<()>>;
    let panics_at_once = |_| panic!("boom");
    let panics_later = |stream| -> BoxFuture<'static, Result<()>> {
        Box::pin(async { panic!("boom {}", fail_in_a_second(stream).await.unwrap_err()) })
    };
    for crash in [fails, panics_at_once, panics_later] {
        let (pool, runs) = crashing(&queue, 2, crash);
        let ids = publish(&queue, 1).await;
        pool.start().await.unwrap();
        soon(queue.wait_acked("s", &ids[0])).await.unwrap();
        let status = pool.status();
        assert_eq!((status.state, status.workers, status.crashes), (PoolState::Running, 1, 2));
        assert_eq!(runs.load(Ordering::Relaxed), 3);
        soon(pool.stop()).await.unwrap();
    }
    assert_eq!(acked(&queue).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_cannot_subscribe_is_restarted() {
    let queue = queue(Order::Unordered).await;
    let (drivers, consumer) = (AtomicUsize::new(0), consumers(&queue, Order::Unordered));
    let driver = move || -> Box<dyn SubscriptionDriver> {
        match drivers.fetch_add(1, Ordering::Relaxed) {
            1 => panic!("boom"), // the first is that of the start
            2 => Box::new(Script::default().insert(fails(ErrorKind::Query)).store()),
            3 => Box::new(Script::default().listen(fails(ErrorKind::Connection)).store()),
            _ => Box::new(consumer()),
        }
    };
    let pool = WorkerPool::new(driver, work_slowly);
    let ids = publish(&queue, 1).await;
    pool.start().await.unwrap();
    soon(queue.wait_acked("s", &ids[0])).await.unwrap();
    assert_eq!(pool.status().crashes, 3);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_subscription_fails_the_pool_at_once_and_is_not_made_again() {
    let queue = queue(Order::Unordered).await;
    let pool = WorkerPool::new(consumers(&queue, Order::Unordered), work_slowly).with_size(3);
    pool.start().await.unwrap();
    idle().await;
    queue.delete_subscription("s").await.unwrap();
    let error = soon(pool.wait()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fatal);
    assert_eq!(error.to_string(), "a worker of the pool crashed for a reason that no restart cures");
    let crash = error.source().unwrap().downcast_ref::<Error>().unwrap();
    assert_eq!((crash.kind(), pool.status().crashes), (ErrorKind::NotFound, 1));
    assert!(queue.subscriptions().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_crash_disturbs_no_other_worker() {
    let queue = queue(Order::Unordered).await;
    let (pool, runs) = crashing(&queue, 1, fail_in_a_second);
    let pool = pool.with_size(3);
    publish(&queue, 3).await;
    pool.start().await.unwrap();
    soon(queue.idle("s")).await;
    let attempts: Vec<_> = acked(&queue).iter().map(|(_, attempt)| *attempt).collect();
    assert_eq!((attempts.iter().sum::<u32>(), runs.load(Ordering::Relaxed)), (4, 4));
    assert_eq!(pool.status().workers, 3);
}

#[tokio::test(start_paused = true)]
async fn more_crashes_than_the_limit_fail_the_pool_visibly() {
    let queue = queue(Order::Unordered).await;
    let (pool, runs) = crashing(&queue, 11, |_| Box::pin(async { Err(fault(ErrorKind::Connection)) }));
    pool.start().await.unwrap();
    let error = soon(pool.wait()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fatal);
    assert_eq!(error.to_string(), "the pool's workers crashed more than 10 times within 60s");
    let crash = error.source().unwrap().downcast_ref::<Error>().unwrap();
    assert_eq!((crash.kind(), crash.to_string()), (ErrorKind::Connection, "the store failed".into()));
    let status = pool.status();
    assert_eq!((status.state, status.workers, status.crashes), (PoolState::Failed, 0, 11));
    assert_eq!(runs.load(Ordering::Relaxed), 11);
    for again in [soon(pool.wait()).await, soon(pool.stop()).await] {
        assert_eq!(again.unwrap_err().kind(), ErrorKind::Fatal, "it is still failed");
    }

    publish(&queue, 1).await;
    pool.start().await.unwrap();
    soon(queue.idle("s")).await;
    assert_eq!((acked(&queue), pool.status().crashes), (all_once(1), 0));
    soon(pool.stop()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn as_many_crashes_as_the_limit_do_not_fail_the_pool() {
    let queue = queue(Order::Unordered).await;
    let (pool, _) = crashing(&queue, 10, |_| panic!("boom"));
    publish(&queue, 1).await;
    pool.start().await.unwrap();
    soon(queue.idle("s")).await;
    assert_eq!((pool.status().state, pool.status().crashes), (PoolState::Running, 10));
}

#[tokio::test(start_paused = true)]
async fn crashes_long_ago_do_not_count() {
    let queue = queue(Order::Unordered).await;
    let crash_in_a_minute = |_| -> BoxFuture<'static, Result<()>> {
        Box::pin(async {
            sleep(seconds(60)).await;
            Err(fault(ErrorKind::Connection))
        })
    };
    let (pool, runs) = crashing(&queue, 30, crash_in_a_minute);
    let pool = pool.with_restarts(1, seconds(60));
    publish(&queue, 1).await;
    pool.start().await.unwrap();
    soon(queue.idle("s")).await;
    assert_eq!((runs.load(Ordering::Relaxed), pool.status().state), (31, PoolState::Running));
}

#[tokio::test(start_paused = true)]
async fn a_failing_pool_lets_the_other_workers_finish() {
    let queue = queue(Order::Unordered).await;
    let (pool, _) = crashing(&queue, 1, fail_in_a_second);
    let pool = pool.with_size(3).with_restarts(0, seconds(60));
    publish(&queue, 9).await;
    pool.start().await.unwrap();
    sleep(seconds(2)).await;
    assert_eq!((pool.status().state, pool.status().workers), (PoolState::Stopping, 2));
    soon(pool.wait()).await.unwrap_err();
    assert_eq!(acked(&queue).len(), 2);
    assert_eq!(queue.pending("s").unwrap().len(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_restart_comes_after_a_pause_that_a_stop_interrupts() {
    let queue = queue(Order::Unordered).await;
    let (pool, runs) = crashing(&queue, 1, |_| panic!("boom"));
    pool.start().await.unwrap();
    sleep(Duration::from_millis(80)).await;
    assert_eq!((runs.load(Ordering::Relaxed), pool.status().workers), (1, 1));
    let asked = Instant::now();
    soon(pool.stop()).await.unwrap();
    assert_eq!((asked, runs.load(Ordering::Relaxed)), (Instant::now(), 1));

    pool.start().await.unwrap();
    idle().await;
    assert_eq!(runs.load(Ordering::Relaxed), 2);
}

/// Fails in five seconds, whatever it is asked.
fn fail_later(_: ConsumeStream<PoolStop>) -> BoxFuture<'static, Result<()>> {
    Box::pin(async {
        sleep(seconds(5)).await;
        Err(fault(ErrorKind::Connection))
    })
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_crashes_after_a_shrinking_is_not_replaced() {
    let queue = queue(Order::Unordered).await;
    let calls = AtomicUsize::new(0);
    let second_fails = move |stream| match calls.fetch_add(1, Ordering::Relaxed) {
        0 => Box::pin(work_slowly(stream)),
        _ => fail_later(stream),
    };
    let (pool, runs) = crashing(&queue, 2, second_fails);
    let pool = pool.with_size(2).with_restarts(0, seconds(60));
    pool.start().await.unwrap();
    idle().await;
    pool.resize(1).unwrap();
    sleep(seconds(10)).await;
    let status = pool.status();
    assert_eq!((status.state, status.workers, status.crashes), (PoolState::Running, 1, 0));
    assert_eq!(runs.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_crashes_while_its_pool_stops_does_not_fail_it() {
    let queue = queue(Order::Unordered).await;
    let (pool, runs) = crashing(&queue, 1, fail_later);
    let pool = pool.with_restarts(0, seconds(60));
    pool.start().await.unwrap();
    idle().await;
    soon(pool.stop()).await.unwrap();
    assert_eq!((runs.load(Ordering::Relaxed), pool.status().state), (1, PoolState::Stopped));
}
