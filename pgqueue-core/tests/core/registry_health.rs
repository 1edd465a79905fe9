//! What a registry finds amiss, and what not.

use std::time::{Duration, SystemTime};

use futures::{FutureExt, StreamExt};
use pgqueue_core::{
    Absence, ErrorKind, Finding, HealthStatus, HorizonHolder, Laggards, PoolState, Registry, Retention, Subscription,
    Topic, subscribe,
};
use tokio::time::sleep;

use crate::{
    flawed::Flawed,
    pool::{publish, soon},
    registry::{registry, stands, stored, subscription},
    script::{fault, idle, seconds},
};

async fn findings(registry: &Registry) -> Vec<Finding> {
    soon(registry.health()).await.unwrap().findings
}

fn missing(why: Absence) -> Finding {
    Finding::Missing { subscription: "s".into(), why }
}

fn orphaned() -> Finding {
    Finding::Orphaned { subscription: "s".into(), failure: None }
}

#[tokio::test(start_paused = true)]
async fn all_is_well_while_pools_are_as_they_are_stored() {
    let (_, store) = stored().await;
    let registry = registry(&store).with_handler("not stored", async |_| Ok(()));
    registry.restore().await.unwrap();
    idle().await;
    let report = registry.health().await.unwrap();
    assert_eq!((report.status(), report.to_string()), (HealthStatus::Healthy, "healthy".into()));
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_was_not_started_has_stopped_or_ended_is_missing() {
    let (queue, store) = stored().await;
    let registry = registry(&store);
    assert_eq!(findings(&registry).await, [missing(Absence::NotStarted)]);

    registry.restore().await.unwrap();
    publish(&queue, 1).await;
    sleep(seconds(1)).await;
    let (stopped, found) = soon(async {
        tokio::join!(registry.stop(), async {
            idle().await;
            findings(&registry).await
        })
    })
    .await;
    stopped.unwrap();
    assert_eq!(found, [missing(Absence::Stopping)]);
    assert_eq!(findings(&registry).await, [missing(Absence::Stopped)]);

    let ends = Registry::new(store).with_handler("s", async |_| Ok(()));
    ends.restore().await.unwrap();
    idle().await;
    assert_eq!(findings(&ends).await, [missing(Absence::Stopped)]);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_has_failed_is_missing_and_its_error_is_told() {
    let (_, store) = stored().await;
    let registry = Registry::new(store).with_handler("s", async |_| Err(fault(ErrorKind::Query)));
    let registry = registry.with_restarts(0, seconds(60));
    registry.restore().await.unwrap();
    idle().await;
    let error = "the pool's workers crashed more than 0 times within 60s: the store failed: client error 42";
    assert_eq!(findings(&registry).await, [missing(Absence::Failed(error.into()))]);
}

#[tokio::test(start_paused = true)]
async fn a_pool_whose_subscription_was_deleted_is_orphaned_whether_it_has_noticed_or_not() {
    let (queue, store) = stored().await;
    let registry = registry(&store);
    registry.restore().await.unwrap();
    idle().await;
    queue.delete_subscription("s").await.unwrap();
    assert_eq!(findings(&registry).await, [orphaned()]);

    sleep(seconds(5)).await;
    let [Finding::Orphaned { failure: Some(failure), .. }] = &findings(&registry).await[..] else { panic!() };
    assert!(failure.ends_with("subscription \"s\" does not exist; insert it first"), "{failure}");
    assert!(queue.subscriptions().await.unwrap().is_empty(), "no worker stored it again");
}

#[tokio::test(start_paused = true)]
async fn a_pool_is_orphaned_also_if_another_subscription_has_the_name() {
    let (queue, store) = stored().await;
    queue.create_topic(Topic::new("u")).await.unwrap();
    let registry = registry(&store);
    registry.restore().await.unwrap();
    idle().await;
    queue.delete_subscription("s").await.unwrap();
    queue.insert_subscription(&Subscription::new("s", "u").with_workers(2)).await.unwrap();
    assert_eq!(findings(&registry).await, [orphaned()]);
}

#[tokio::test(start_paused = true)]
async fn a_pool_of_another_size_than_is_stored_is_found() {
    let (queue, store) = stored().await;
    let registry = registry(&store);
    registry.restore().await.unwrap();
    idle().await;
    queue.insert_subscription(&subscription(5)).await.unwrap();
    assert_eq!(findings(&registry).await, [Finding::Resized { subscription: "s".into(), size: 2, workers: 5 }]);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_is_stale_if_nobody_consumes_it_anywhere() {
    let (queue, store) = stored().await;
    let observer = Registry::new(store.clone());
    assert_eq!(findings(&observer).await, [Finding::Stale { subscription: "s".into() }]);

    let mut elsewhere = subscribe(queue.subscription(subscription(2))).await.unwrap();
    assert!(elsewhere.next().now_or_never().is_none());
    assert_eq!(findings(&observer).await, []);
    drop(elsewhere);
    idle().await;
    assert_eq!(findings(&observer).await, [Finding::Stale { subscription: "s".into() }]);
    let server = registry(&store);
    server.restore().await.unwrap();
    assert_eq!(findings(&server).await, [], "it has a handler, though no consumer yet");
}

#[tokio::test(start_paused = true)]
async fn a_subscription_lags_by_age_or_by_number() {
    let (queue, store) = stored().await;
    let mut elsewhere = subscribe(queue.subscription(subscription(2))).await.unwrap();
    assert!(elsewhere.next().now_or_never().is_none());
    let lagging = |waiting, oldest| Finding::Lagging {
        subscription: "s".into(),
        waiting,
        waiting_is_exact: true,
        oldest: Some(oldest),
    };
    publish(&queue, 3).await;
    let observer = Registry::new(store.clone());
    sleep(seconds(300)).await;
    assert_eq!(findings(&observer).await, []);
    sleep(seconds(1)).await;
    assert_eq!(findings(&observer).await, [lagging(3, seconds(301))]);

    let strict = Registry::new(store).with_lag_limits(2, Duration::MAX);
    assert_eq!(findings(&strict).await, [lagging(3, seconds(301))]);
    let generous = strict.with_lag_limits(3, Duration::MAX);
    assert_eq!(findings(&generous).await, []);
    drop(elsewhere);
}

#[tokio::test(start_paused = true)]
async fn what_a_subscription_lost_to_retention_is_found() {
    let (queue, store) = stored().await;
    let retention = Retention::everything().with_max_messages(2).with_laggards(Laggards::Cut);
    queue.create_topic(Topic::new("t").with_retention(retention)).await.unwrap();
    publish(&queue, 5).await;
    let registry = registry(&store);
    registry.restore().await.unwrap();
    idle().await;
    let [missing, cut] = &findings(&registry).await[..] else { panic!() };
    assert_eq!(cut, &Finding::Cut { subscription: "s".into(), messages: 3 });
    let Finding::Missing { why: Absence::Failed(error), .. } = missing else { panic!("{missing:?}") };
    assert!(error.contains("subscription \"s\" lagged behind"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_horizon_that_is_held_for_too_long_is_found() {
    let (_, store) = stored().await;
    let registry = registry(&store);
    registry.restore().await.unwrap();
    let holder = |transactions, seconds_ago| {
        let since = SystemTime::now() - seconds(seconds_ago);
        HorizonHolder::new("session", "psql (pid 7, idle in transaction)", transactions, Some(since))
    };
    for (harmless, harmful) in [(holder(9, 3500), holder(9, 3700)), (holder(1_000_000, 9), holder(1_000_001, 9))] {
        store.hold_horizon(harmless);
        assert_eq!(findings(&registry).await, []);
        store.hold_horizon(harmful.clone());
        assert_eq!(findings(&registry).await, [Finding::HorizonHeld(harmful)]);
    }
    let patient = registry.with_horizon_limits(seconds(7200), 2_000_000);
    assert_eq!(findings(&patient).await, []);
}

#[tokio::test(start_paused = true)]
async fn findings_come_by_name_and_last_those_about_all() {
    let (queue, store) = stored().await;
    for name in ["a", "z"] {
        queue.insert_subscription(&Subscription::new(name, "t")).await.unwrap();
    }
    store.hold_horizon(HorizonHolder::new("replication slot", "standby", u64::MAX, None));
    let registry = registry(&store);
    publish(&queue, 1).await;
    sleep(seconds(301)).await;
    let report = registry.health().await.unwrap();
    assert_eq!(report.status(), HealthStatus::Degraded);
    let names: Vec<_> = report.findings.iter().map(Finding::subscription).collect();
    assert_eq!(names, [Some("a"), Some("a"), Some("s"), Some("s"), Some("z"), Some("z"), None]);
    assert_eq!(report.to_string().lines().count(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_or_never_answers_is_an_error() {
    let (_, store) = stored().await;
    let registry = registry(&store);
    store.fail(Some(ErrorKind::Connection));
    let inserted = subscription(3);
    for error in [
        registry.health().await.unwrap_err(),
        registry.restore().await.unwrap_err(),
        registry.repair().await.unwrap_err(),
        registry.insert(&inserted).await.unwrap_err(),
        registry.list().await.unwrap_err(),
        registry.get("s").await.unwrap_err(),
        registry.remove("s").await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Connection);
        assert!(error.operation().is_some());
    }
    store.fail(None);
    store.delay(seconds(31));
    assert_eq!(soon(registry.health()).await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(soon(registry.restore()).await.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(registry.status("s").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_goes_while_health_looks_is_passed_over() {
    let (queue, store) = stored().await;
    queue.insert_subscription(&Subscription::new("gone", "t")).await.unwrap();
    store.delay(seconds(1));
    let observer = Registry::new(store);
    let (report, ()) = soon(async {
        tokio::join!(observer.health(), async {
            idle().await;
            queue.delete_subscription("gone").await.unwrap();
        })
    })
    .await;
    assert_eq!(report.unwrap().findings, [Finding::Stale { subscription: "s".into() }]);
}

/// Inserts a subscription while a look and a repair wait for what was stored before; neither is to go by that.
async fn assert_is_neither_found_nor_repaired(registry: &Registry, store: &Flawed, inserted: &Subscription) {
    store.delay(seconds(1));
    let insert_meanwhile = async {
        idle().await;
        store.delay(Duration::ZERO);
        registry.insert(inserted).await
    };
    let (report, repairs, inserting) =
        soon(async { tokio::join!(registry.health(), registry.repair(), insert_meanwhile) }).await;
    inserting.unwrap();
    assert_eq!((report.unwrap().findings, repairs.unwrap()), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn what_is_inserted_while_somebody_looks_is_neither_found_nor_repaired() {
    let (queue, store) = stored().await;
    queue.delete_subscription("s").await.unwrap();
    let registry = registry(&store);
    for workers in [1, 5] {
        assert_is_neither_found_nor_repaired(&registry, &store, &subscription(workers)).await;
        idle().await;
        assert_eq!(stands(&registry), Some((PoolState::Running, workers, workers)));
    }
}
