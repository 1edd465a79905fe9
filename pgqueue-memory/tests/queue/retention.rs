//! What a topic keeps, and what becomes of those who lag behind it.

use futures::{FutureExt, StreamExt};
use pgqueue_core::{
    Ack, ErrorKind, Laggards, NewMessage, Order, Publisher, Result, Retention, Selector, Start, Subscription,
    SubscriptionDriver, Topic, subscribe,
};
use pgqueue_memory::MemoryQueue;
use tokio::time::advance;

use crate::{HOUR, fetch, payloads, publish, queue};

/// A queue whose topic `t` cuts laggards, with subscription `s`.
async fn cutting(retention: Retention) -> MemoryQueue {
    let queue = queue(|s| s).await;
    queue.create_topic(Topic::new("t").with_retention(retention.with_laggards(Laggards::Cut))).await.unwrap();
    queue
}

#[tokio::test(start_paused = true)]
async fn a_topic_keeps_the_latest_messages_up_to_its_limits() -> Result<()> {
    let everything = Retention::everything();
    for (number, (retention, kept)) in [
        (Retention::nothing(), vec![]),
        (everything, vec!["a", "b", "c", "d"]),
        (everything.with_max_messages(3), vec!["b", "c", "d"]),
        (everything.with_max_bytes(2), vec!["c", "d"]),
        (everything.with_max_age(HOUR), vec!["d"]),
        (everything.with_max_age(2 * HOUR).with_max_messages(1), vec!["d"]),
    ]
    .into_iter()
    .enumerate()
    {
        let queue = queue(|s| s).await;
        queue.create_topic(Topic::new("t").with_retention(retention)).await?;
        publish(&queue, &["a", "b", "c"]).await;
        advance(HOUR).await;
        publish(&queue, &["d"]).await;
        queue.insert_subscription(&Subscription::new("late", "t").with_start(Start::Beginning)).await?;
        assert_eq!(payloads(&queue.pending("late")?), kept, "{number}: {retention:?}");
        assert_eq!(payloads(&queue.pending("s")?), ["a", "b", "c", "d"], "{number}: what it has not passed");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn who_starts_behind_what_is_kept_is_told() -> Result<()> {
    let queue = queue(|s| s).await;
    queue.create_topic(Topic::new("t").with_retention(Retention::everything().with_max_messages(2))).await?;
    publish(&queue, &["a", "b", "c", "d"]).await;
    let positions: Vec<_> = queue.pending("s")?.iter().map(|message| message.position().clone()).collect();
    for (n, position) in positions.into_iter().enumerate() {
        let subscription = Subscription::new(n.to_string(), "t").with_start(Start::After(position));
        let inserted = queue.insert_subscription(&subscription).await;
        match n {
            0 => assert_eq!(inserted.unwrap_err().kind(), ErrorKind::Truncated),
            _ => {
                inserted?;
                assert_eq!(payloads(&queue.pending(&n.to_string())?), ["a", "b", "c", "d"][n + 1..]);
            }
        }
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn laggards_lose_what_was_never_handed_out() -> Result<()> {
    let queue = cutting(Retention::everything().with_max_age(HOUR)).await;
    let ids = publish(&queue, &["in hand", "retrying", "dead", "waiting", "waiting too"]).await;
    let driver = queue.subscription(Subscription::new("s", "t"));
    let in_hand = fetch(&driver).await;
    fetch(&driver).await.settle(Ack::requeue_after(2 * HOUR)).await?;
    fetch(&driver).await.settle(Ack::reject("bad")).await?;
    let mut waiting = Box::pin(queue.wait_acked("s", &ids[3]));
    assert!(waiting.as_mut().now_or_never().is_none());

    advance(HOUR).await;
    let stats = queue.stats("s").await?;
    assert_eq!((stats.waiting, stats.in_flight, stats.retrying, stats.dead, stats.cut), (0, 1, 1, 1, 2));
    let never = waiting.now_or_never().expect("it is over").unwrap_err();
    assert_eq!(never.kind(), ErrorKind::NotFound, "nobody will ack it");
    let error = driver.fetch_pending().await.unwrap_err();
    assert_eq!((error.kind(), error.is_transient()), (ErrorKind::Truncated, false));
    let says = "subscription \"s\" lagged behind what its topic retains and lost messages, which its statistics count; \
                move it with seek to what is left";
    assert_eq!(error.to_string(), says);
    in_hand.ok().await?;
    publish(&queue, &["later"]).await;
    assert_eq!(driver.fetch_pending().await.unwrap_err().kind(), ErrorKind::Truncated, "until it is moved");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn who_was_cut_goes_on_once_it_is_moved() -> Result<()> {
    let queue = cutting(Retention::everything().with_max_messages(2)).await;
    publish(&queue, &["a", "b", "c"]).await;
    publish(&queue, &["d"]).await;
    assert_eq!(queue.stats("s").await?.cut, 2);
    queue.seek("s", &Start::Beginning).await?;
    assert_eq!(queue.stats("s").await?.cut, 0);
    let driver = queue.subscription(Subscription::new("s", "t"));
    for text in ["c", "d"] {
        let delivery = fetch(&driver).await;
        assert_eq!(payloads(delivery.messages()), [text]);
        delivery.ok().await?;
    }
    publish(&queue, &["e", "f", "g"]).await;
    assert_eq!(queue.stats("s").await?.cut, 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn consumers_asleep_are_told_that_they_were_cut_off() -> Result<()> {
    let queue = cutting(Retention::everything().with_max_bytes(1)).await;
    let total = || Subscription::new("total", "t").with_order(Order::Total);
    let mut stream = subscribe(queue.subscription(total())).await?;
    publish(&queue, &["a"]).await;
    let driver = queue.subscription(total());
    let _in_hand = fetch(&driver).await;
    assert!(stream.next().now_or_never().is_none());
    publish(&queue, &["b"]).await;
    assert!(stream.next().now_or_never().is_none(), "it waits behind what is in hand");
    publish(&queue, &["c"]).await;
    let error = stream.next().now_or_never().expect("it is awake").unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Truncated);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn who_selects_nothing_of_what_went_is_not_cut() -> Result<()> {
    let queue = cutting(Retention::everything().with_max_messages(1)).await;
    let selective = Subscription::new("selective", "t").with_selector(Selector::key("k"));
    queue.insert_subscription(&selective).await?;
    publish(&queue, &["a", "b"]).await;
    queue.publish("t", vec![NewMessage::new("c").with_key("k")]).await?;
    assert_eq!((queue.stats("s").await?.cut, queue.stats("selective").await?.cut), (2, 0));
    assert_eq!(payloads(fetch(&queue.subscription(selective)).await.messages()), ["c"]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn redriven_dead_letters_are_not_cut() -> Result<()> {
    let queue = cutting(Retention::everything().with_max_messages(2)).await;
    publish(&queue, &["dead"]).await;
    let driver = queue.subscription(Subscription::new("s", "t"));
    fetch(&driver).await.settle(Ack::reject("bad")).await?;
    publish(&queue, &["a"]).await;
    queue.redrive("s").await?;
    publish(&queue, &["b", "c", "d"]).await;
    assert_eq!(payloads(&queue.pending("s")?), ["dead", "c", "d"]);
    assert_eq!(queue.stats("s").await?.cut, 2);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn laggards_that_were_held_are_cut_once_the_topic_says_so() -> Result<()> {
    let queue = queue(|s| s).await;
    let two = Retention::everything().with_max_messages(2);
    queue.create_topic(Topic::new("t").with_retention(two)).await?;
    publish(&queue, &["a", "b", "c"]).await;
    assert_eq!(queue.stats("s").await?.cut, 0);
    queue.create_topic(Topic::new("t").with_retention(two.with_laggards(Laggards::Cut))).await?;
    assert_eq!(queue.stats("s").await?.cut, 1);
    Ok(())
}
