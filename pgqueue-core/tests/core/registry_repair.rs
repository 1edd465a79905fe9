//! What a registry repairs by itself, and that it deletes and moves nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use pgqueue_core::{
    Ack, BoxError, ConsumeStream, Consumers, ErrorKind, HealthStatus, Job, PoolState, PoolStop, PublisherExt, Registry,
    Repair, Result, Subscription, Topic, Worker,
};
use tokio::time::{sleep, timeout};

use crate::{
    pool::{acked, all_once, publish, soon, work_slowly},
    registry::{registry, stands, started, stored, subscription},
    script::{fault, idle, seconds},
};

async fn is_healthy(registry: &Registry) -> bool {
    registry.health().await.unwrap().status() == HealthStatus::Healthy
}

#[tokio::test(start_paused = true)]
async fn a_missing_pool_is_started() {
    let (queue, store) = stored().await;
    let registry = registry(&store);
    publish(&queue, 3).await;
    assert_eq!(registry.repair().await.unwrap(), [started()]);
    assert!(is_healthy(&registry).await);
    soon(queue.idle("s")).await;
    assert_eq!(acked(&queue), all_once(3));
    assert_eq!(registry.repair().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_handler_serves_a_subscription_that_is_stored_later_by_others() {
    let (queue, store) = stored().await;
    let registry = registry(&store).with_handler("later", work_slowly);
    registry.restore().await.unwrap();
    queue.insert_subscription(&Subscription::new("later", "t")).await.unwrap();
    publish(&queue, 1).await;
    assert_eq!(registry.repair().await.unwrap(), [Repair::Started { subscription: "later".into() }]);
    soon(queue.idle("later")).await;
    assert_eq!(queue.acked("later").unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_pool_is_started_again() {
    let (queue, store) = stored().await;
    let runs = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&runs);
    let registry = Registry::new(store).with_restarts(0, seconds(60)).with_handler("s", move |stream| {
        let fails = count.fetch_add(1, Ordering::Relaxed) < 2;
        async move { if fails { Err(fault(ErrorKind::Query)) } else { work_slowly(stream).await } }
    });
    registry.restore().await.unwrap();
    publish(&queue, 3).await;
    idle().await;
    assert_eq!(registry.status("s").unwrap().state, PoolState::Failed);
    assert!(!is_healthy(&registry).await);

    assert_eq!(registry.repair().await.unwrap(), [started()]);
    assert!(is_healthy(&registry).await);
    soon(queue.idle("s")).await;
    assert_eq!(acked(&queue), all_once(3));
}

/// Handles one message at a time, each for ten seconds, whatever becomes of its subscription meanwhile.
async fn work_on(stream: ConsumeStream<PoolStop>) -> Result<()> {
    let handler = async |_: Job<u32>| {
        sleep(seconds(10)).await;
        Ok::<_, BoxError>(Ack::Ok)
    };
    Worker::new(stream, handler).with_concurrency(1).with_cancel_on_lease_lost(false).run().await
}

#[tokio::test(start_paused = true)]
async fn an_orphaned_pool_is_stopped_once_its_handlers_have_finished() {
    let (queue, store) = stored().await;
    let registry = Registry::new(store).with_handler("s", work_on);
    registry.restore().await.unwrap();
    publish(&queue, 2).await;
    sleep(seconds(1)).await;
    queue.delete_subscription("s").await.unwrap();

    assert_eq!(registry.repair().await.unwrap(), [Repair::Stopped { subscription: "s".into() }]);
    idle().await;
    assert_eq!(stands(&registry), Some((PoolState::Stopping, 2, 2)));
    assert!(!is_healthy(&registry).await);
    assert_eq!(registry.repair().await.unwrap(), [], "it was asked already");
    sleep(seconds(9)).await;
    assert_eq!(stands(&registry), Some((PoolState::Stopped, 2, 0)));
    assert!(is_healthy(&registry).await);
    assert!(queue.subscriptions().await.unwrap().is_empty());

    queue.insert_subscription(&subscription(1)).await.unwrap();
    assert_eq!(registry.repair().await.unwrap(), [started()]);
}

#[tokio::test(start_paused = true)]
async fn an_orphaned_pool_that_has_failed_is_forgotten() {
    let (queue, store) = stored().await;
    let registry = registry(&store);
    registry.restore().await.unwrap();
    idle().await;
    queue.delete_subscription("s").await.unwrap();
    sleep(seconds(5)).await;
    assert_eq!(registry.status("s").unwrap().state, PoolState::Failed);

    assert_eq!(registry.repair().await.unwrap(), [Repair::Forgotten { subscription: "s".into() }]);
    assert!(registry.status("s").is_none());
    assert!(is_healthy(&registry).await);
    soon(registry.stop()).await.unwrap();
    assert!(queue.subscriptions().await.unwrap().is_empty(), "no worker stored it again");
}

#[tokio::test(start_paused = true)]
async fn another_subscription_of_the_same_name_is_served_after_the_first() {
    let (queue, store) = stored().await;
    queue.create_topic(Topic::new("u")).await.unwrap();
    let registry = Registry::new(store).with_handler("s", work_on);
    registry.restore().await.unwrap();
    publish(&queue, 2).await;
    sleep(seconds(1)).await;
    queue.delete_subscription("s").await.unwrap();
    queue.insert_subscription(&Subscription::new("s", "u").with_workers(3)).await.unwrap();

    assert_eq!(registry.repair().await.unwrap(), [Repair::Stopped { subscription: "s".into() }]);
    sleep(seconds(10)).await;
    assert_eq!(registry.repair().await.unwrap(), [started()]);
    let id = queue.publish_json("u", &7).await.unwrap();
    soon(queue.wait_acked("s", &id)).await.unwrap();
    assert_eq!(stands(&registry), Some((PoolState::Running, 3, 3)));
    assert!(is_healthy(&registry).await);
}

#[tokio::test(start_paused = true)]
async fn a_pool_gets_the_size_that_somebody_else_has_stored() {
    let (queue, store) = stored().await;
    let registry = registry(&store);
    registry.restore().await.unwrap();
    for (from, to) in [(2, 5), (5, 1)] {
        queue.insert_subscription(&subscription(to)).await.unwrap();
        assert_eq!(registry.repair().await.unwrap(), [Repair::Resized { subscription: "s".into(), from, to }]);
        idle().await;
        assert_eq!((stands(&registry), queue.listeners("s").unwrap()), (Some((PoolState::Running, to, to)), to));
        assert!(is_healthy(&registry).await);
    }
}

#[tokio::test(start_paused = true)]
async fn of_several_repairs_at_once_one_does_it() {
    let (queue, store) = stored().await;
    store.delay(seconds(1));
    let registry = registry(&store);
    let repairs = soon(join_all((0..5).map(|_| registry.repair()))).await;
    let repairs: Vec<_> = repairs.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(repairs, [started()]);
    sleep(seconds(5)).await;
    assert_eq!(queue.listeners("s").unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_repair_that_is_dropped_has_done_nothing() {
    let (queue, store) = stored().await;
    store.delay(seconds(1));
    let registry = registry(&store);
    timeout(Duration::from_millis(500), registry.repair()).await.unwrap_err();
    sleep(seconds(10)).await;
    assert_eq!((stands(&registry), queue.listeners("s").unwrap()), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn an_exclusive_subscription_is_taken_over_by_the_repair_of_another_process() {
    let (queue, store) = stored().await;
    let (first, second) = (registry(&store), registry(&store));
    first.insert(&subscription(1).with_consumers(Consumers::Exclusive)).await.unwrap();
    idle().await;
    for _ in 0..2 {
        assert_eq!(second.repair().await.unwrap(), [started()]);
        idle().await;
        assert!(second.health().await.unwrap().to_string().contains("is exclusive and has a living consumer"));
        assert!(is_healthy(&first).await);
    }
    soon(first.stop()).await.unwrap();
    assert_eq!(second.repair().await.unwrap(), [started()]);
    publish(&queue, 1).await;
    soon(queue.idle("s")).await;
    assert!(is_healthy(&second).await);
    assert_eq!(acked(&queue), all_once(1));
}

#[tokio::test(start_paused = true)]
async fn a_repair_deletes_and_moves_nothing() {
    let (queue, store) = stored().await;
    for name in ["stale", "lagging"] {
        queue.insert_subscription(&Subscription::new(name, "t")).await.unwrap();
    }
    publish(&queue, 3).await;
    sleep(seconds(24 * 60 * 60)).await;
    let registry = Registry::new(store);
    assert_eq!(registry.health().await.unwrap().findings.len(), 6);
    assert_eq!(registry.repair().await.unwrap(), []);
    for name in ["s", "stale", "lagging"] {
        assert_eq!(queue.pending(name).unwrap().len(), 3);
    }
}
