//! A registry that looks after its pools until it is told to stop.

use futures::{FutureExt, pin_mut};
use pgqueue_core::{ErrorKind, PoolState, Registry, Subscription};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    pool::{acked, all_once, publish, soon, work_slowly},
    registry::{registry, stands, stored, subscription},
    script::{ClientError, fault, gate, idle, seconds},
};

#[tokio::test(start_paused = true)]
async fn a_registry_restores_and_stops_gracefully() {
    let (queue, store) = stored().await;
    let registry = registry(&store);
    publish(&queue, 4).await;
    let began = Instant::now();
    soon(registry.run(sleep(seconds(15)))).await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 20, "both workers were at their second message");
    assert_eq!((acked(&queue), queue.listeners("s").unwrap()), (all_once(4), 0));
    assert_eq!(stands(&registry), Some((PoolState::Stopped, 2, 0)));
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_is_to_stop_at_once_starts_nothing() {
    let (queue, store) = stored().await;
    let registry = registry(&store);
    registry.run(async {}).now_or_never().unwrap().unwrap();
    assert_eq!((stands(&registry), queue.listeners("s").unwrap()), (None, 0));
}

/// A monitor of pools once took those that had just been restored for leftovers.
#[tokio::test(start_paused = true)]
async fn restored_subscriptions_are_still_there_two_minutes_after_boot_and_two_days() {
    let (queue, store) = stored().await;
    queue.insert_subscription(&Subscription::new("unserved", "t")).await.unwrap();
    let registry = registry(&store);
    let (stop, stopped) = gate();
    let running = registry.run(stopped);
    let looking = async {
        for pause in [1, 59, 61, 2 * 24 * 60 * 60] {
            sleep(seconds(pause)).await;
            let names: Vec<_> = registry.list().await.unwrap().iter().map(|stored| stored.name().to_owned()).collect();
            assert_eq!(names, ["s", "unserved"]);
            assert_eq!(stands(&registry), Some((PoolState::Running, 2, 2)));
        }
        publish(&queue, 1).await;
        soon(queue.idle("s")).await;
        drop(stop);
    };
    let both = async { tokio::join!(running, looking) };
    timeout(seconds(3 * 24 * 60 * 60), both).await.unwrap().0.unwrap();
    assert_eq!(acked(&queue), all_once(1));
    assert_eq!(queue.pending("unserved").unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_registry_repairs_after_every_interval() {
    let (queue, store) = stored().await;
    for (registry, interval) in [(registry(&store), 60), (registry(&store).with_repair_interval(seconds(7)), 7)] {
        queue.insert_subscription(&subscription(2)).await.unwrap();
        let asked = store.stats_asked();
        let (done, altered) = gate();
        let altering = async {
            sleep(seconds(1)).await;
            assert_eq!(store.stats_asked(), asked, "it does not look at once");
            for workers in [3, 4] {
                queue.insert_subscription(&subscription(workers)).await.unwrap();
                sleep(seconds(interval - 2)).await;
                assert_eq!(registry.status("s").unwrap().size, workers - 1);
                sleep(seconds(2)).await;
                assert_eq!(registry.status("s").unwrap().size, workers);
            }
            drop(done);
        };
        soon(async { tokio::join!(registry.run(altered), altering) }).await.0.unwrap();
        assert_eq!(store.stats_asked(), asked + 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_registry_goes_on_when_its_store_fails() {
    let (queue, store) = stored().await;
    let registry = registry(&store);
    store.fail(Some(ErrorKind::Connection));
    let (done, mended) = gate();
    let mending = async {
        sleep(seconds(90)).await;
        assert_eq!(stands(&registry), None);
        store.fail(None);
        sleep(seconds(31)).await;
        assert_eq!(stands(&registry), Some((PoolState::Running, 2, 2)));
        store.fail(Some(ErrorKind::Query));
        publish(&queue, 2).await;
        sleep(seconds(600)).await;
        assert_eq!(acked(&queue), all_once(2), "the pools do not mind");
        drop(done);
    };
    soon(async { tokio::join!(registry.run(mended), mending) }).await.0.unwrap();
    assert_eq!(queue.listeners("s").unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_registry_repairs_also_if_it_cannot_see_how_subscriptions_stand() {
    let (queue, store) = stored().await;
    queue.delete_subscription("s").await.unwrap();
    let registry = registry(&store);
    let (done, seen) = gate();
    let looking = async {
        sleep(seconds(1)).await;
        queue.insert_subscription(&subscription(2)).await.unwrap();
        store.fail_stats();
        sleep(seconds(60)).await;
        assert_eq!(stands(&registry), Some((PoolState::Running, 2, 2)));
        drop(done);
    };
    soon(async { tokio::join!(registry.run(seen), looking) }).await.0.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_registry_stops_also_while_it_waits_for_its_store() {
    let (_, store) = stored().await;
    store.delay(seconds(20));
    let registry = registry(&store);
    let began = Instant::now();
    soon(registry.run(sleep(seconds(5)))).await.unwrap();
    assert_eq!((began.elapsed().as_secs(), stands(&registry)), (5, None));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_dropped_leaves_the_pools_to_the_next() {
    let (queue, store) = stored().await;
    let registry = registry(&store);
    timeout(seconds(5), registry.run(std::future::pending())).await.unwrap_err();
    publish(&queue, 1).await;
    idle().await;
    assert_eq!(queue.in_flight("s").unwrap().len(), 1);
    soon(registry.run(sleep(seconds(1)))).await.unwrap();
    assert_eq!((acked(&queue), queue.listeners("s").unwrap()), (all_once(1), 0));
}

#[tokio::test(start_paused = true)]
async fn a_run_ends_with_the_error_of_a_pool_that_had_failed() {
    let (_, store) = stored().await;
    let registry =
        Registry::new(store).with_restarts(0, seconds(60)).with_handler("s", async |_| Err(fault(ErrorKind::Query)));
    let error = soon(registry.run(sleep(seconds(5)))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fatal);
    let sources = std::iter::successors(std::error::Error::source(&error), |error| error.source());
    assert_eq!(sources.last().unwrap().downcast_ref(), Some(&ClientError(42)));
}

#[test]
fn a_registry_and_what_it_does_can_be_shared_and_spawned() {
    fn spawned<T: Send>(_: &T) {}
    fn shared<T: Send + Sync>(_: &T) {}
    let store = crate::flawed::Flawed::new(&pgqueue_memory::MemoryQueue::new());
    let registry = Registry::new(store).with_handler("s", work_slowly);
    shared(&registry);
    let running = registry.run(async {});
    pin_mut!(running);
    spawned(&running);
    spawned(&registry.health());
    spawned(&registry.repair());
}
