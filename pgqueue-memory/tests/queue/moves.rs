//! Subscriptions that are moved, counted and looked after; checkpoints.

use std::time::Duration;

use futures::FutureExt;
use pgqueue_core::{
    Ack, CheckpointStore, ErrorKind, Operation, Position, Result, Retention, Start, Subscription, SubscriptionStats,
    SubscriptionStore, Topic,
};
use pgqueue_memory::MemoryQueue;
use tokio::time::advance;

use crate::{HOUR, fetch, payloads, publish, queue};

async fn retaining(messages: u64) -> MemoryQueue {
    let queue = queue(|s| s).await;
    let retention = Retention::everything().with_max_messages(messages);
    queue.create_topic(Topic::new("t").with_retention(retention)).await.unwrap();
    queue
}

#[tokio::test(start_paused = true)]
async fn moved_subscription_forgets_what_it_had() -> Result<()> {
    let queue = retaining(10).await;
    let ids = publish(&queue, &["a", "b", "c"]).await;
    let driver = queue.subscription(Subscription::new("s", "t"));
    let held = fetch(&driver).await;
    let mut lost = held.lease_lost();
    assert!((&mut lost).now_or_never().is_none());
    fetch(&driver).await.settle(Ack::requeue_after(HOUR)).await?;
    fetch(&driver).await.ok().await?;
    drop(driver);

    queue.seek("s", &Start::Beginning).await?;
    lost.now_or_never().expect("the handler is told");
    assert_eq!(held.ok().await.unwrap_err().kind(), ErrorKind::LeaseLost);
    let pending = queue.pending("s")?;
    assert_eq!((payloads(&pending), pending[0].attempt()), (vec!["a", "b", "c"], 0));
    assert!(queue.wait_acked("s", &ids[2]).now_or_never().is_none(), "it is to be acked again");
    advance(2 * HOUR).await;
    assert_eq!(queue.stats("s").await?.waiting, 3, "no retry comes back");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn subscription_that_cannot_be_moved_stays_as_it_is() -> Result<()> {
    let queue = retaining(2).await;
    publish(&queue, &["a", "b", "c", "d"]).await;
    let first = queue.pending("s")?[0].position().clone();
    let driver = queue.subscription(Subscription::new("s", "t"));
    fetch(&driver).await.settle(Ack::reject("bad")).await?;
    let refused = async |start: &Start, kind: ErrorKind, says: &str| {
        let error = queue.seek("s", start).await.unwrap_err();
        assert_eq!((error.kind(), error.operation()), (kind, Some(Operation::Manage)));
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(payloads(&queue.pending("s").unwrap()), ["b", "c", "d"]);
    };

    refused(&Start::Now, ErrorKind::Conflict, "\"s\" has 1 living consumers; stop its consumers first").await;
    driver.crash();
    refused(&Start::Now, ErrorKind::Conflict, "living consumers").await;
    advance(HOUR).await;
    refused(&Start::Now, ErrorKind::Conflict, "\"s\" has 1 dead letters; redrive or purge them first").await;
    queue.purge_dead_letters("s").await?;
    refused(&Start::After(first), ErrorKind::Truncated, "does not have all").await;
    refused(&Start::After(Position::new("x")), ErrorKind::Invalid, "is not one of this queue").await;
    assert_eq!(queue.seek("nobody", &Start::Now).await.unwrap_err().kind(), ErrorKind::NotFound);
    queue.seek("s", &Start::Now).await?;
    assert!(queue.pending("s")?.is_empty());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn statistics_say_how_a_subscription_stands() -> Result<()> {
    let queue = queue(|s| s.with_batch(2)).await;
    assert_eq!(queue.stats("s").await?, SubscriptionStats::new("s"));
    publish(&queue, &["a", "b"]).await;
    advance(Duration::from_secs(60)).await;
    publish(&queue, &["c", "d", "e", "f", "g"]).await;
    let driver = queue.subscription(Subscription::new("s", "t"));
    let old = fetch(&driver).await;
    fetch(&driver).await.settle(Ack::requeue_after(HOUR)).await?;
    fetch(&driver).await.settle(Ack::reject("bad")).await?;

    let stats = queue.stats("s").await?;
    assert_eq!((stats.waiting, stats.waiting_is_exact, stats.held_back, stats.cut), (1, true, 0, 0));
    assert_eq!((stats.in_flight, stats.retrying, stats.dead, stats.consumers), (2, 2, 2, 1));
    assert_eq!(stats.oldest, Some(Duration::from_secs(60)));
    old.ok().await?;
    assert_eq!(queue.stats("s").await?.oldest, Some(Duration::ZERO));
    let error = queue.stats("nobody").await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::NotFound, Some(Operation::Manage)));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn queue_keeps_subscriptions_for_those_who_know_no_driver() -> Result<()> {
    let queue = queue(|s| s).await;
    let store: &dyn SubscriptionStore = &queue;
    let wanted = Subscription::new("stored", "t").with_workers(2);
    store.insert_subscription(&wanted).await?;
    assert_eq!(store.find_subscription("stored").await?.expect("inserted").workers(), 2);
    assert!(store.find_subscription("nobody").await?.is_none());
    assert_eq!(store.subscriptions().await?.len(), 2);
    publish(&queue, &["a"]).await;
    fetch(&store.consumer(wanted)).await.ok().await?;
    assert_eq!(store.stats("stored").await?.waiting, 0);
    assert!(store.horizon_holder().await?.is_none());
    store.delete_subscription("stored").await?;
    assert!(store.find_subscription("stored").await?.is_none());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn checkpoints_say_when_they_moved() -> Result<()> {
    let queue = MemoryQueue::new();
    queue.advance_checkpoint("c", &Position::new("1")).await?;
    let first = queue.checkpoint("c").await?.expect("made").moved_at;
    advance(HOUR).await;
    queue.advance_checkpoint("c", &Position::new("1")).await?;
    assert_eq!(queue.checkpoint("c").await?.expect("made").moved_at, first, "it stood there already");
    queue.advance_checkpoint("c", &Position::new("2")).await?;
    assert_eq!(queue.checkpoint("c").await?.expect("made").moved_at, first + HOUR);
    let error = queue.reset_checkpoint("c", &Position::new("1"), None).await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Conflict, Some(Operation::Manage)));
    assert!(error.to_string().ends_with("checkpoint \"c\" stands at 2, not at 1; look at it again before moving it"));
    Ok(())
}
