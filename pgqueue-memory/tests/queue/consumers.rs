//! Which consumers of a subscription live, and which of them gets its messages.

use std::time::Duration;

use futures::{FutureExt, StreamExt};
use pgqueue_core::{Ack, Consumers, ErrorKind, Result, Subscription, SubscriptionDriver, subscribe};
use tokio::time::{advance, timeout};

use crate::{HOUR, fetch, payloads, publish, queue};

const INSTANT: Duration = Duration::from_millis(1);

fn single() -> Subscription {
    Subscription::new("s", "t").with_consumers(Consumers::SingleActive).with_lease(HOUR)
}

fn exclusive() -> Subscription {
    single().with_consumers(Consumers::Exclusive)
}

#[tokio::test(start_paused = true)]
async fn first_to_fetch_is_active_for_as_long_as_it_lives() -> Result<()> {
    let queue = queue(|_| single()).await;
    let (made_first, active) = (queue.subscription(single()), queue.subscription(single()));
    assert_eq!(queue.stats("s").await?.consumers, 0, "none has fetched");
    assert!(active.fetch_pending().await?.is_none());
    publish(&queue, &["a", "b"]).await;
    assert!(made_first.fetch_pending().await?.is_none());
    advance(2 * HOUR).await;
    assert!(made_first.fetch_pending().await?.is_none(), "the active one does not fetch, but lives");
    assert_eq!(queue.stats("s").await?.consumers, 2);
    fetch(&active).await.ok().await?;
    drop(active);
    fetch(&made_first).await.ok().await?;
    assert_eq!(queue.stats("s").await?.consumers, 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn standby_is_woken_once_all_of_the_active_one_is_settled() -> Result<()> {
    let queue = queue(|_| single()).await;
    publish(&queue, &["a", "b", "c"]).await;
    let active = queue.subscription(single());
    let (a, b) = (fetch(&active).await, fetch(&active).await);
    let mut standby = subscribe(queue.subscription(single())).await?;
    assert!(standby.next().now_or_never().is_none());

    drop(active);
    assert_eq!(queue.stats("s").await?.consumers, 1, "it lives no more");
    drop(a);
    assert!(standby.next().now_or_never().is_none(), "something is still in hand");
    b.ok().await?;
    let next = standby.next().now_or_never().expect("it is awake").unwrap()?;
    assert_eq!(payloads(next.messages()), ["a"]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_another_makes_no_noise() -> Result<()> {
    let queue = queue(|_| single()).await;
    let (active, standby) = (queue.subscription(single()), queue.subscription(single()));
    assert!(active.fetch_pending().await?.is_none());
    let mut wakeups = standby.listen().await?;
    publish(&queue, &["a", "b"]).await;
    fetch(&active).await.settle(Ack::requeue_after(INSTANT)).await?;
    assert!(timeout(HOUR, wakeups.next()).await.is_err());
    drop(active);
    assert!(timeout(INSTANT, wakeups.next()).await.is_ok());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn silent_consumer_loses_its_subscription_and_stands_by() -> Result<()> {
    for crashes in [false, true] {
        let queue = queue(|_| single()).await;
        publish(&queue, &["a"]).await;
        let frozen = queue.subscription(single());
        let held = fetch(&frozen).await;
        let mut standby = subscribe(queue.subscription(single())).await?;
        if crashes {
            frozen.crash();
        } else {
            frozen.pause_heartbeat();
        }
        assert!(timeout(HOUR - INSTANT, standby.next()).await.is_err(), "its lease is not over");
        let next = timeout(2 * INSTANT, standby.next()).await.expect("it is awake").unwrap()?;
        assert_eq!(payloads(next.messages()), ["a"]);
        assert_eq!(held.ok().await.unwrap_err().kind(), ErrorKind::LeaseLost);

        frozen.resume_heartbeat();
        publish(&queue, &["b"]).await;
        assert!(frozen.fetch_pending().await?.is_none(), "it is second now");
        next.ok().await?;
        assert_eq!(payloads(standby.next().await.unwrap()?.messages()), ["b"]);
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn silent_consumer_that_holds_nothing_is_taken_over_too() -> Result<()> {
    let queue = queue(|_| single()).await;
    let active = queue.subscription(single());
    assert!(active.fetch_pending().await?.is_none());
    let mut standby = subscribe(queue.subscription(single())).await?;
    assert!(standby.next().now_or_never().is_none());
    publish(&queue, &["a"]).await;
    active.crash();
    assert!(timeout(HOUR - INSTANT, standby.next()).await.is_err(), "its lease is not over");
    timeout(2 * INSTANT, standby.next()).await.expect("it is awake").unwrap()?.ok().await
}

#[tokio::test(start_paused = true)]
async fn silence_shorter_than_a_lease_changes_nothing() -> Result<()> {
    let queue = queue(|_| single()).await;
    let (active, standby) = (queue.subscription(single()), queue.subscription(single()));
    assert!(active.fetch_pending().await?.is_none());
    active.pause_heartbeat();
    advance(HOUR - INSTANT).await;
    active.resume_heartbeat();
    advance(2 * HOUR).await;
    publish(&queue, &["a"]).await;
    assert!(standby.fetch_pending().await?.is_none());
    fetch(&active).await.ok().await
}

#[tokio::test(start_paused = true)]
async fn ending_all_leases_kills_the_silent_only() -> Result<()> {
    let queue = queue(|_| single()).await;
    publish(&queue, &["a"]).await;
    let (active, standby) = (queue.subscription(single()), queue.subscription(single()));
    let held = fetch(&active).await;
    queue.expire_leases("s")?;
    assert_eq!(held.ok().await.unwrap_err().kind(), ErrorKind::LeaseLost);
    assert!(standby.fetch_pending().await?.is_none(), "the active one lives");
    let held = fetch(&active).await;
    active.crash();
    assert!(standby.fetch_pending().await?.is_none(), "it is not silent for long enough");
    queue.expire_leases("s")?;
    fetch(&standby).await.ok().await?;
    assert_eq!(held.ok().await.unwrap_err().kind(), ErrorKind::LeaseLost);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn exclusive_subscription_is_refused_to_others() -> Result<()> {
    let queue = queue(|_| exclusive()).await;
    let (first, second) = (queue.subscription(exclusive()), queue.subscription(exclusive()));
    assert!(first.fetch_pending().await?.is_none());
    let error = second.fetch_pending().await.unwrap_err();
    assert_eq!((error.kind(), error.is_transient()), (ErrorKind::Conflict, false));
    let says =
        "subscription \"s\" is exclusive and has a living consumer; stop that one, or wait for the end of its lease";
    assert_eq!(error.to_string(), says);
    assert_eq!(queue.stats("s").await?.consumers, 1, "who is refused does not count");

    drop(first);
    assert!(second.fetch_pending().await?.is_none());
    second.crash();
    let third = queue.subscription(exclusive());
    assert_eq!(third.fetch_pending().await.unwrap_err().kind(), ErrorKind::Conflict);
    advance(HOUR).await;
    assert!(third.fetch_pending().await?.is_none());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn last_inserter_says_who_gets_messages() -> Result<()> {
    let queue = queue(|_| single()).await;
    let active = queue.subscription(single());
    assert!(active.fetch_pending().await?.is_none());
    publish(&queue, &["a"]).await;
    let mut standby = subscribe(queue.subscription(single())).await?;
    assert!(standby.next().now_or_never().is_none());
    queue.insert_subscription(&single().with_consumers(Consumers::Competing).with_workers(3)).await?;
    assert_eq!(queue.find_subscription("s").await?.expect("inserted").workers(), 3);
    standby.next().now_or_never().expect("it competes now").unwrap()?.ok().await?;

    queue.alter_subscription(&exclusive()).await?;
    publish(&queue, &["b"]).await;
    assert_eq!(standby.next().await.unwrap().unwrap_err().kind(), ErrorKind::Conflict);
    fetch(&active).await.ok().await
}
