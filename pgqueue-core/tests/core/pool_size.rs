//! Pools that grow and shrink while they run: nothing is lost, doubled or out of order.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::FutureExt;
use pgqueue_core::{Ack, BoxError, ErrorKind, Job, NewMessage, Order, Publisher, Worker, WorkerPool};
use tokio::time::{Instant, sleep};

use crate::{
    pool::{acked, all_once, consumers, publish, queue, slow_pool, soon},
    script::{idle, seconds},
};

/// Resizes a pool from 1 to 4 to 2 while it works, and looks at every call of its handler and every ack.
async fn assert_resizing_loses_and_doubles_nothing() {
    let queue = queue(Order::Unordered).await;
    let calls = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&calls);
    let pool = WorkerPool::new(consumers(&queue, Order::Unordered), move |stream| {
        let log = Arc::clone(&log);
        let handler = move |job: Job<u32>| {
            log.lock().unwrap().push(job.value);
            sleep(Duration::from_millis(u64::from(job.value % 13))).map(|()| Ok::<_, BoxError>(Ack::Ok))
        };
        Worker::new(stream, handler).with_concurrency(3).run()
    });
    let ids = publish(&queue, 600).await;
    pool.start().await.unwrap();
    for (id, size) in [(100, 4), (300, 2)] {
        soon(queue.wait_acked("s", &ids[id])).await.unwrap();
        pool.resize(size).unwrap();
    }
    soon(queue.idle("s")).await;
    soon(pool.stop()).await.unwrap();

    let mut calls = calls.lock().unwrap().clone();
    calls.sort_unstable();
    assert_eq!(calls, (0..600).collect::<Vec<_>>());
    assert_eq!(acked(&queue), all_once(600));
    assert_eq!(pool.status().crashes, 0);
}

#[tokio::test(start_paused = true)]
async fn resizing_from_1_to_4_to_2_loses_and_doubles_nothing() {
    assert_resizing_loses_and_doubles_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn resizing_across_threads_loses_and_doubles_nothing() {
    assert_resizing_loses_and_doubles_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn shrinking_lets_those_who_go_finish_and_take_nothing_more() {
    let queue = queue(Order::Unordered).await;
    let pool = slow_pool(&queue).with_size(4);
    publish(&queue, 8).await;
    pool.start().await.unwrap();
    sleep(seconds(1)).await;
    pool.resize(1).unwrap();
    idle().await;
    assert_eq!((pool.status().size, pool.status().workers), (1, 4));

    sleep(seconds(10)).await;
    assert_eq!((pool.status().workers, queue.listeners("s").unwrap(), queue.in_flight("s").unwrap().len()), (1, 1, 1));
    assert_eq!(acked(&queue), all_once(4));
}

#[tokio::test(start_paused = true)]
async fn growing_puts_new_workers_to_work_at_once() {
    let queue = queue(Order::Unordered).await;
    let pool = slow_pool(&queue);
    publish(&queue, 4).await;
    let started = Instant::now();
    pool.start().await.unwrap();
    idle().await;
    pool.resize(4).unwrap();
    soon(queue.idle("s")).await;
    assert_eq!((started.elapsed().as_secs(), acked(&queue)), (10, all_once(4)));
}

#[tokio::test(start_paused = true)]
async fn keys_keep_their_order_through_resizes() {
    let queue = queue(Order::ByKey).await;
    let handled = Arc::new(Mutex::new(HashMap::<String, Vec<u32>>::new()));
    let log = Arc::clone(&handled);
    let pool = WorkerPool::new(consumers(&queue, Order::ByKey), move |stream| {
        let log = Arc::clone(&log);
        let handler = move |job: Job<u32>| {
            let log = Arc::clone(&log);
            async move {
                sleep(Duration::from_millis(u64::from(job.value * 7 % 13))).await;
                let key = job.message().key().unwrap().to_owned();
                log.lock().unwrap().entry(key).or_default().push(job.value);
                Ok::<_, BoxError>(Ack::Ok)
            }
        };
        Worker::new(stream, handler).run()
    });
    let message = |number: u32| NewMessage::json(&number).unwrap().with_key(format!("key-{}", number % 20));
    let ids = queue.publish("t", (0..600).map(message).collect()).await.unwrap();
    pool.start().await.unwrap();
    for (id, size) in [(50, 4), (200, 2), (350, 5), (500, 1)] {
        soon(queue.wait_acked("s", &ids[id])).await.unwrap();
        pool.resize(size).unwrap();
    }
    soon(queue.idle("s")).await;
    soon(pool.stop()).await.unwrap();

    let handled = handled.lock().unwrap();
    assert_eq!(handled.values().map(Vec::len).collect::<Vec<_>>(), [30; 20]);
    assert!(handled.values().all(|numbers| numbers.is_sorted()), "{handled:?}");
    assert_eq!(acked(&queue), all_once(600));
}

#[tokio::test(start_paused = true)]
async fn a_size_set_while_stopped_counts_at_the_next_start() {
    let queue = queue(Order::Unordered).await;
    let pool = slow_pool(&queue).with_size(2);
    for size in [2, 3] {
        pool.resize(size).unwrap();
        pool.start().await.unwrap();
        idle().await;
        assert_eq!((pool.status().size, pool.status().workers, queue.listeners("s").unwrap()), (size, size, size));
        soon(pool.stop()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_size_of_0_is_refused_and_nothing_changes() {
    let queue = queue(Order::Unordered).await;
    let pool = slow_pool(&queue).with_size(2);
    pool.start().await.unwrap();
    assert_eq!(pool.resize(0).unwrap_err().kind(), ErrorKind::Invalid);
    idle().await;
    assert_eq!((pool.status().size, pool.status().workers), (2, 2));
}
