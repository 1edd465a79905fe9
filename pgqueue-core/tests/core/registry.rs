//! A registry: which pools it starts, resizes and stops.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use pgqueue_core::{ErrorKind, Order, PoolState, Registry, Repair, Subscription, Topic};
use pgqueue_memory::MemoryQueue;
use tokio::time::sleep;

use crate::{
    flawed::Flawed,
    pool::{acked, all_once, publish, queue, soon, work_slowly},
    script::{fault, idle, seconds},
};

/// Subscription `s` of topic `t`.
pub(crate) fn subscription(workers: usize) -> Subscription {
    Subscription::new("s", "t").with_workers(workers)
}

/// A registry whose workers of `s` are slow.
pub(crate) fn registry(store: &Flawed) -> Registry {
    Registry::new(store.clone()).with_handler("s", work_slowly)
}

/// A queue with topic `t` and subscription `s`, which has two workers.
pub(crate) async fn stored() -> (MemoryQueue, Flawed) {
    let queue = queue(Order::Unordered).await;
    queue.insert_subscription(&subscription(2)).await.unwrap();
    (queue.clone(), Flawed::new(&queue))
}

/// Whether the pool of `s` runs, its size and how many workers it has.
pub(crate) fn stands(registry: &Registry) -> Option<(PoolState, usize, usize)> {
    registry.status("s").map(|status| (status.state, status.size, status.workers))
}

pub(crate) fn started() -> Repair {
    Repair::Started { subscription: "s".into() }
}

#[tokio::test(start_paused = true)]
async fn restored_pools_get_what_was_published_before_and_right_after() {
    let (queue, store) = stored().await;
    publish(&queue, 10).await;

    let registry = registry(&store);
    assert_eq!(registry.restore().await.unwrap(), ["s"]);
    publish(&queue, 20).await;
    soon(queue.idle("s")).await;
    assert_eq!(acked(&queue).len(), 30);
    assert!(acked(&queue).iter().all(|(_, attempt)| *attempt == 1));
}

#[tokio::test(start_paused = true)]
async fn what_is_published_between_two_processes_is_handled_by_the_second() {
    let (queue, store) = stored().await;
    let first = registry(&store);
    first.restore().await.unwrap();
    idle().await;
    soon(first.stop()).await.unwrap();
    drop(first);
    publish(&queue, 10).await;

    let second = registry(&store);
    second.restore().await.unwrap();
    soon(queue.idle("s")).await;
    assert_eq!(acked(&queue), all_once(10));
}

#[tokio::test(start_paused = true)]
async fn pools_are_restored_with_the_workers_that_are_stored() {
    let (queue, store) = stored().await;
    queue.insert_subscription(&Subscription::new("other", "t").with_workers(3)).await.unwrap();
    queue.insert_subscription(&Subscription::new("unserved", "t")).await.unwrap();

    let registry = registry(&store).with_handler("other", work_slowly).with_handler("unknown", work_slowly);
    assert_eq!(registry.restore().await.unwrap(), ["other", "s"]);
    idle().await;
    for (name, workers) in [("s", 2), ("other", 3), ("unserved", 0)] {
        assert_eq!(queue.listeners(name).unwrap(), workers);
    }
    assert!(registry.status("unknown").is_none());
}

#[tokio::test(start_paused = true)]
async fn restoring_twice_starts_nothing_twice() {
    let (queue, store) = stored().await;
    let registry = registry(&store);
    assert_eq!(registry.restore().await.unwrap(), ["s"]);
    for _ in 0..2 {
        assert!(registry.restore().await.unwrap().is_empty());
        assert!(registry.repair().await.unwrap().is_empty());
        idle().await;
    }
    assert_eq!(queue.listeners("s").unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_restore_leaves_pools_that_run_as_they_are() {
    let (queue, store) = stored().await;
    let registry = registry(&store);
    registry.restore().await.unwrap();
    queue.insert_subscription(&subscription(5)).await.unwrap();
    assert!(registry.restore().await.unwrap().is_empty());
    idle().await;
    assert_eq!(stands(&registry), Some((PoolState::Running, 2, 2)));
}

#[tokio::test(start_paused = true)]
async fn of_several_who_start_pools_at_once_one_does() {
    let (queue, store) = stored().await;
    store.delay(seconds(1));
    let registry = registry(&store);
    let inserted = subscription(2);
    let (one, other, repairs, inserting) = soon(async {
        tokio::join!(registry.restore(), registry.restore(), registry.repair(), registry.insert(&inserted))
    })
    .await;
    inserting.unwrap();
    assert!(one.unwrap().len() + other.unwrap().len() + repairs.unwrap().len() <= 1);
    sleep(seconds(5)).await;
    assert_eq!(queue.listeners("s").unwrap(), 2);
    assert_eq!(stands(&registry), Some((PoolState::Running, 2, 2)));
}

#[tokio::test(start_paused = true)]
async fn inserting_starts_a_pool_and_then_resizes_it() {
    let queue = MemoryQueue::new();
    queue.create_topic(Topic::new("t")).await.unwrap();
    let registry = registry(&Flawed::new(&queue));
    for workers in [1, 4, 4, 2] {
        registry.insert(&subscription(workers)).await.unwrap();
        idle().await;
        assert_eq!(stands(&registry), Some((PoolState::Running, workers, workers)));
        assert_eq!(registry.get("s").await.unwrap(), Some(subscription(workers)));
    }
    assert_eq!(queue.listeners("s").unwrap(), 2);
    let ids = publish(&queue, 10).await;
    soon(queue.wait_acked("s", &ids[9])).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_subscription_without_a_handler_is_stored_and_not_served() {
    let (queue, store) = stored().await;
    let registry = Registry::new(store);
    registry.insert(&subscription(7)).await.unwrap();
    assert!(registry.restore().await.unwrap().is_empty());
    assert!(registry.status("s").is_none());
    assert_eq!(queue.find_subscription("s").await.unwrap(), Some(subscription(7)));
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_cannot_be_used_changes_nothing() {
    let (queue, store) = stored().await;
    let registry = registry(&store);
    registry.restore().await.unwrap();
    for (bad, kind) in [
        (subscription(0), ErrorKind::Invalid),
        (subscription(7).with_order(Order::Total), ErrorKind::Conflict),
        (Subscription::new("new", "unknown"), ErrorKind::NotFound),
    ] {
        assert_eq!(registry.insert(&bad).await.unwrap_err().kind(), kind);
    }
    idle().await;
    assert_eq!(stands(&registry), Some((PoolState::Running, 2, 2)));
    assert_eq!(queue.subscriptions().await.unwrap(), [subscription(2)]);
}

#[tokio::test(start_paused = true)]
async fn the_stored_subscriptions_are_listed_by_name() {
    let (queue, store) = stored().await;
    queue.insert_subscription(&Subscription::new("a", "t")).await.unwrap();
    queue.insert_subscription(&Subscription::new("z", "t")).await.unwrap();
    let registry = registry(&store);
    let listed = registry.list().await.unwrap();
    assert_eq!(listed, [Subscription::new("a", "t"), subscription(2), Subscription::new("z", "t")]);
    assert_eq!(registry.get("s").await.unwrap(), Some(subscription(2)));
    assert_eq!(registry.get("b").await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn removing_lets_handlers_finish_and_then_deletes() {
    let (queue, store) = stored().await;
    queue.insert_subscription(&Subscription::new("other", "t")).await.unwrap();
    let handled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&handled);
    let registry = Registry::new(store.clone()).with_handler("s", move |stream| {
        let count = Arc::clone(&count);
        work_slowly(stream).inspect(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        })
    });
    registry.restore().await.unwrap();
    publish(&queue, 4).await;
    sleep(seconds(1)).await;
    assert_eq!(queue.in_flight("s").unwrap().len(), 2);

    soon(registry.remove("s")).await.unwrap();
    assert_eq!(handled.load(Ordering::Relaxed), 2, "both workers have come to their end");
    assert!(registry.status("s").is_none());
    assert_eq!(queue.subscriptions().await.unwrap(), [Subscription::new("other", "t")]);
    assert_eq!(registry.remove("s").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(registry.repair().await.unwrap().is_empty());

    registry.insert(&subscription(2)).await.unwrap();
    idle().await;
    assert_eq!(stands(&registry), Some((PoolState::Running, 2, 2)));
}

#[tokio::test(start_paused = true)]
async fn a_pool_whose_subscription_cannot_be_removed_is_started_by_the_next_repair() {
    let (queue, store) = stored().await;
    let registry = registry(&store);
    registry.restore().await.unwrap();
    idle().await;
    store.fail(Some(ErrorKind::Connection));
    assert_eq!(soon(registry.remove("s")).await.unwrap_err().kind(), ErrorKind::Connection);
    assert_eq!(stands(&registry), Some((PoolState::Stopped, 2, 0)));
    store.fail(None);
    assert_eq!(registry.repair().await.unwrap(), [started()]);
    idle().await;
    assert_eq!(queue.listeners("s").unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_all_pools_and_what_is_stopped_can_be_restored() {
    let (queue, store) = stored().await;
    queue.insert_subscription(&Subscription::new("other", "t")).await.unwrap();
    let registry = registry(&store).with_handler("other", work_slowly);
    registry.restore().await.unwrap();
    publish(&queue, 4).await;
    sleep(seconds(1)).await;

    soon(registry.stop()).await.unwrap();
    assert_eq!((acked(&queue).len(), queue.acked("other").unwrap().len()), (2, 1));
    assert_eq!((queue.listeners("s").unwrap(), queue.listeners("other").unwrap()), (0, 0));
    soon(registry.stop()).await.unwrap();

    assert_eq!(registry.restore().await.unwrap(), ["other", "s"]);
    soon(queue.idle("s")).await;
    soon(queue.idle("other")).await;
    assert_eq!((acked(&queue), queue.acked("other").unwrap().len()), (all_once(4), 4));
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_still_stops_is_not_started_beside_itself() {
    let (queue, store) = stored().await;
    let registry = registry(&store);
    registry.restore().await.unwrap();
    publish(&queue, 1).await;
    sleep(seconds(1)).await;
    assert!(registry.stop().now_or_never().is_none());
    idle().await;
    assert!(registry.restore().await.unwrap().is_empty());
    assert_eq!(stands(&registry), Some((PoolState::Stopping, 2, 1)));
    sleep(seconds(10)).await;
    assert_eq!(registry.restore().await.unwrap(), ["s"]);
    idle().await;
    assert_eq!((acked(&queue), queue.listeners("s").unwrap()), (all_once(1), 2));
}

#[tokio::test(start_paused = true)]
async fn what_is_on_its_way_starts_nothing_after_a_stop() {
    let (queue, store) = stored().await;
    store.delay(seconds(1));
    let registry = registry(&store);
    let inserted = subscription(3);
    let stop_meanwhile = async {
        idle().await;
        registry.stop().await
    };
    let (restored, repairs, inserting, stopped) =
        soon(async { tokio::join!(registry.restore(), registry.repair(), registry.insert(&inserted), stop_meanwhile) })
            .await;
    inserting.and(stopped).unwrap();
    assert!(restored.unwrap().is_empty() && repairs.unwrap().is_empty());
    assert!(registry.status("s").is_none());
    assert_eq!(queue.find_subscription("s").await.unwrap(), Some(inserted));
}

#[tokio::test(start_paused = true)]
async fn a_stop_says_whose_pool_had_failed_and_stops_the_others() {
    let (queue, store) = stored().await;
    queue.insert_subscription(&Subscription::new("other", "t")).await.unwrap();
    let registry =
        registry(&store).with_handler("other", async |_| Err(fault(ErrorKind::Query))).with_restarts(0, seconds(60));
    registry.restore().await.unwrap();
    idle().await;
    let error = soon(registry.stop()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string()),
        (ErrorKind::Fatal, "the pool of subscription \"other\" had failed".into())
    );
    assert_eq!(stands(&registry), Some((PoolState::Stopped, 2, 0)));
}

#[tokio::test(start_paused = true)]
async fn a_restarted_worker_takes_nothing_back_that_was_altered() {
    let (queue, store) = stored().await;
    let runs = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&runs);
    let registry = Registry::new(store).with_handler("s", move |stream| {
        let fails = count.fetch_add(1, Ordering::Relaxed) < 2;
        async move {
            if fails {
                sleep(seconds(5)).await;
                return Err(fault(ErrorKind::Query));
            }
            work_slowly(stream).await
        }
    });
    registry.restore().await.unwrap();
    idle().await;
    let altered = subscription(2).with_batch(7).with_lease(Duration::from_secs(99));
    queue.insert_subscription(&altered).await.unwrap();
    sleep(seconds(10)).await;
    assert_eq!((runs.load(Ordering::Relaxed), registry.status("s").unwrap().crashes), (4, 2));
    assert_eq!(queue.subscriptions().await.unwrap(), [altered]);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_makes_no_sense_does_nothing() {
    let (queue, store) = stored().await;
    for (registry, says) in [
        (registry(&store).with_handler("s", work_slowly), "two handlers for subscription \"s\""),
        (registry(&store).with_repair_interval(Duration::ZERO), "repairs every 0 s"),
        (registry(&store).with_restarts(3, Duration::ZERO), "crashes within no time"),
    ] {
        let inserted = subscription(7);
        for error in [
            registry.restore().await.unwrap_err(),
            registry.repair().await.unwrap_err(),
            registry.insert(&inserted).await.unwrap_err(),
            soon(registry.run(sleep(seconds(1)))).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains(says), "{error}");
        }
        assert!(registry.status("s").is_none());
    }
    assert_eq!(queue.subscriptions().await.unwrap(), [subscription(2)]);
}

#[tokio::test(start_paused = true)]
async fn dropping_a_registry_cancels_its_pools() {
    let (queue, store) = stored().await;
    let registry = registry(&store);
    registry.restore().await.unwrap();
    publish(&queue, 1).await;
    sleep(seconds(1)).await;
    drop(registry);
    idle().await;
    assert_eq!((queue.listeners("s").unwrap(), queue.pending("s").unwrap().len()), (0, 1));
}
