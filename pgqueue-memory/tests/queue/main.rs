//! What the memory queue offers beyond the driver's contract: management, inspection, drains, and hours in milliseconds.

mod consumers;
mod moves;
mod retention;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, StreamExt};
use pgqueue_core::{
    Ack, Backoff, Delivery, ErrorKind, Job, Message, MessageId, NewMessage, Operation, Order, Publisher, PublisherExt,
    Result, Subscription, SubscriptionDriver, Topic, bucket, subscribe,
};
use pgqueue_memory::MemoryQueue;
use tokio::time::{Instant, advance, timeout};

const HOUR: Duration = Duration::from_secs(3600);

/// A queue with topic `t` and subscription `s`.
async fn queue(subscription: impl FnOnce(Subscription) -> Subscription) -> MemoryQueue {
    let queue = MemoryQueue::new();
    queue.create_topic(Topic::new("t")).await.unwrap();
    queue.insert_subscription(&subscription(Subscription::new("s", "t"))).await.unwrap();
    queue
}

fn payloads(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| std::str::from_utf8(message.payload()).unwrap()).collect()
}

async fn publish(queue: &MemoryQueue, texts: &[&'static str]) -> Vec<MessageId> {
    queue.publish("t", texts.iter().map(|text| NewMessage::new(*text)).collect()).await.unwrap()
}

async fn fetch(driver: &impl SubscriptionDriver) -> Delivery {
    driver.fetch_pending().await.unwrap().expect("a delivery")
}

#[tokio::test(start_paused = true)]
async fn retry_an_hour_away_takes_no_time() {
    let queue = queue(|s| s.with_backoff(Backoff::fixed(HOUR))).await;
    let id = queue.publish_json("t", &1).await.unwrap();
    let handler = async |job: Job<u8>| if job.message().attempt() < 3 { Err("busy") } else { Ok(Ack::Ok) };
    let (started, really_started) = (Instant::now(), std::time::Instant::now());

    let driver = queue.subscription(Subscription::new("s", "t").with_backoff(Backoff::fixed(HOUR)));
    let waiting = queue.clone();
    let acked = async move { drop(waiting.wait_acked("s", &id).await) };
    let stream = subscribe(driver).await.unwrap().until(acked);
    pgqueue_core::Worker::new(stream, handler).run().await.unwrap();

    assert_eq!(started.elapsed().as_secs(), 2 * 3600);
    assert!(really_started.elapsed() < Duration::from_secs(5));
    let acked = &queue.acked("s").unwrap()[0];
    let age =
        |time: Option<std::time::SystemTime>| time.unwrap().duration_since(acked.published_at()).unwrap().as_secs();
    assert_eq!((acked.attempt(), age(acked.last_delivered_at()), age(acked.last_requeued_at())), (3, 7200, 3600));
}

#[tokio::test(start_paused = true)]
async fn drain_ends_when_nothing_is_due() {
    let queue = queue(|s| s.with_backoff(Backoff::fixed(HOUR))).await;
    queue.publish("t", (0..10).map(|n| NewMessage::json(&n).unwrap()).collect()).await.unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let handler = |job: Job<u8>| {
        calls.fetch_add(1, Ordering::Relaxed);
        async move { if job.value < 3 { Ok(Ack::requeue()) } else { Ok::<_, &str>(Ack::Ok) } }
    };

    queue.drain("s", handler).await.unwrap();
    assert_eq!((calls.load(Ordering::Relaxed), queue.acked("s").unwrap().len()), (10, 7));
    queue.drain("s", handler).await.unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 10, "nothing is due yet");
    advance(HOUR).await;
    queue.drain("s", handler).await.unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 13);
    assert_eq!(queue.drain("nobody", handler).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn drain_ends_after_a_stop() {
    use pgqueue_core::Outcome::{Continue, Stop};

    let queue = queue(|s| s).await;
    publish(&queue, &["1", "2", "3"]).await;
    let stop_at_2 = async |job: Job<u8>| Ok::<_, &str>(if job.value == 2 { Stop(Ack::Ok) } else { Continue(Ack::Ok) });
    queue.drain("s", stop_at_2).await.unwrap();
    assert_eq!(payloads(&queue.acked("s").unwrap()), ["1", "2"]);
    assert_eq!(payloads(&queue.pending("s").unwrap()), ["3"]);
}

#[tokio::test(start_paused = true)]
async fn every_state_of_a_message_can_be_looked_at() {
    let queue = queue(|s| s).await;
    publish(&queue, &["a", "b", "c", "d", "e"]).await;
    let driver = queue.subscription(Subscription::new("s", "t"));
    fetch(&driver).await.ok().await.unwrap();
    fetch(&driver).await.settle(Ack::reject("bad")).await.unwrap();
    fetch(&driver).await.requeue().await.unwrap();
    let held = fetch(&driver).await;

    assert_eq!(payloads(&queue.acked("s").unwrap()), ["a"]);
    assert_eq!(payloads(&queue.in_flight("s").unwrap()), ["d"]);
    let pending = queue.pending("s").unwrap();
    assert_eq!(payloads(&pending), ["c", "e"]);
    assert_eq!([pending[0].attempt(), pending[1].attempt()], [1, 0], "deliveries so far");
    let dead = queue.dead_letters("s").await.unwrap();
    assert_eq!((&dead[0].message.payload()[..], &*dead[0].reason), (&b"b"[..], "bad"));

    drop(held);
    assert_eq!(payloads(&queue.pending("s").unwrap()), ["c", "d", "e"]);
    for error in [queue.pending("x").unwrap_err(), queue.in_flight("x").unwrap_err(), queue.acked("x").unwrap_err()] {
        assert_eq!((error.kind(), error.operation()), (ErrorKind::NotFound, Some(Operation::Manage)));
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_for_an_ack_is_free_of_races() {
    let queue = queue(|s| s).await;
    let ids = publish(&queue, &["a", "b"]).await;
    let driver = queue.subscription(Subscription::new("s", "t"));
    fetch(&driver).await.ok().await.unwrap();
    assert_eq!(queue.wait_acked("s", &ids[0]).await.unwrap().attempt(), 1, "it happened already");

    let mut waiting = Box::pin(queue.wait_acked("s", &ids[1]));
    assert!(waiting.as_mut().now_or_never().is_none(), "it is still pending");
    let delivery = fetch(&driver).await;
    assert!(waiting.as_mut().now_or_never().is_none(), "it is in flight");
    let (acked, ()) = tokio::join!(waiting, async { delivery.ok().await.unwrap() });
    assert_eq!(acked.unwrap().id(), &ids[1]);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_an_ack_that_cannot_come_is_an_error() {
    let queue = queue(|s| s).await;
    let ids = publish(&queue, &["a"]).await;
    let mut waiting = Box::pin(queue.wait_acked("s", &ids[0]));
    assert!(waiting.as_mut().now_or_never().is_none());
    fetch(&queue.subscription(Subscription::new("s", "t"))).await.settle(Ack::reject("bad")).await.unwrap();
    let died = waiting.await.unwrap_err();
    assert_eq!(
        (died.kind(), died.to_string().ends_with("message 1 died in subscription \"s\": bad")),
        (ErrorKind::Conflict, true)
    );

    for id in ["77", "no number"] {
        assert_eq!(queue.wait_acked("s", &MessageId::new(id)).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
    let scheduled = queue.publish_one("t", NewMessage::new("later").with_delay(HOUR)).await.unwrap();
    let mut waiting = Box::pin(queue.wait_acked("s", &scheduled));
    assert!(waiting.as_mut().now_or_never().is_none(), "it is scheduled");
    queue.delete_subscription("s").await.unwrap();
    assert_eq!(waiting.await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn what_is_due_but_held_behind_its_key_makes_no_noise() {
    let queue = queue(|s| s.with_order(Order::Total)).await;
    publish(&queue, &["a", "b"]).await;
    let driver = queue.subscription(Subscription::new("s", "t").with_order(Order::Total));
    let held = fetch(&driver).await;
    queue.publish_one("t", NewMessage::new("c").with_delay(Duration::from_secs(1))).await.unwrap();
    let mut wakeups = driver.listen().await.unwrap();

    assert!(timeout(HOUR, wakeups.next()).await.is_err(), "the lane is in hand");
    held.ok().await.unwrap();
    assert!(timeout(Duration::from_secs(1), wakeups.next()).await.is_ok(), "the lane is free");
    assert!(timeout(HOUR, wakeups.next()).await.is_err(), "that was announced already");
}

#[tokio::test(start_paused = true)]
async fn dedup_ids_hold_for_a_topic_and_a_window() {
    let queue = queue(|s| s).await;
    queue.create_topic(Topic::new("other").with_dedup_window(HOUR)).await.unwrap();
    let publish =
        async |topic: &str, id: &str| queue.publish_one(topic, NewMessage::new("x").with_dedup_id(id)).await.unwrap();
    let first = publish("t", "1").await;
    assert_eq!(publish("t", "1").await, first);
    assert_ne!(publish("t", "2").await, first);
    let other = publish("other", "1").await;
    assert_ne!(other, first);

    advance(HOUR).await;
    assert_ne!(publish("other", "1").await, other, "its window is over");
    advance(22 * HOUR + HOUR - Duration::from_millis(1)).await;
    assert_eq!(publish("t", "1").await, first, "24 hours are not over");
    advance(Duration::from_millis(1)).await;
    assert_ne!(publish("t", "1").await, first);
    assert_eq!(queue.pending("s").unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn refused_batch_publishes_nothing() {
    let queue = queue(|s| s).await;
    let good = || NewMessage::new("good").with_dedup_id("once");
    let error = queue.publish("t", vec![good(), NewMessage::new("bad").with_key("")]).await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Invalid, Some(Operation::Publish)));
    assert!(queue.pending("s").unwrap().is_empty());

    let error = queue.publish("nowhere", vec![good()]).await.unwrap_err();
    assert_eq!(error.to_string(), "publishing: topic \"nowhere\" does not exist; create it first");
    queue.publish("t", vec![good()]).await.unwrap();
    assert_eq!(queue.pending("s").unwrap().len(), 1, "the dedup id was not taken by the refused batch");
}

#[tokio::test(start_paused = true)]
async fn scheduled_message_takes_its_place_when_it_is_due() {
    let queue = queue(|s| s.with_order(Order::Total)).await;
    let late = queue.publish_one("t", NewMessage::new("late").with_delay(HOUR)).await.unwrap();
    publish(&queue, &["early"]).await;
    assert_eq!(payloads(&queue.pending("s").unwrap()), ["early"]);
    advance(HOUR).await;
    let pending = queue.pending("s").unwrap();
    assert_eq!(payloads(&pending), ["early", "late"]);
    assert_eq!(pending[1].id(), &late);
    assert!(pending[0].position() < pending[1].position());
}

#[tokio::test(start_paused = true)]
async fn scheduling_for_ever_is_not_an_overflow() {
    let queue = queue(|s| s).await;
    let far = NewMessage::new("x").with_delay(Duration::MAX);
    let past = NewMessage::new("y").with_delivery_time(std::time::SystemTime::UNIX_EPOCH);
    queue.publish("t", vec![far, past]).await.unwrap();
    assert_eq!(payloads(&queue.pending("s").unwrap()), ["y"]);
    let driver = queue.subscription(Subscription::new("s", "t"));
    fetch(&driver).await.settle(Ack::requeue_after(Duration::MAX)).await.unwrap();
    assert!(driver.fetch_pending().await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn lanes_are_the_buckets_of_the_topic() {
    let queue = queue(|s| s.with_order(Order::ByKey)).await;
    let keys: Vec<_> = (0..40).map(|n| format!("key-{n}")).collect();
    queue.publish("t", keys.iter().map(|key| NewMessage::new("x").with_key(key)).collect()).await.unwrap();
    let driver = queue.subscription(Subscription::new("s", "t").with_order(Order::ByKey));
    let mut held = Vec::new();
    while let Some(delivery) = driver.fetch_pending().await.unwrap() {
        held.push(delivery);
    }
    let mut in_hand: Vec<_> = held.iter().map(|delivery| bucket(delivery.message().key().unwrap(), 16)).collect();
    in_hand.sort_unstable();
    let mut all: Vec<_> = keys.iter().map(|key| bucket(key, 16)).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(in_hand, all, "one delivery a bucket");
}

#[tokio::test(start_paused = true)]
async fn paused_heartbeat_loses_leases_and_says_so() {
    let queue = queue(|s| s.with_lease(HOUR)).await;
    publish(&queue, &["a", "b"]).await;
    let frozen = queue.subscription(Subscription::new("s", "t").with_lease(HOUR));
    let (a, b) = (fetch(&frozen).await, fetch(&frozen).await);
    let mut lost = a.lease_lost();

    frozen.pause_heartbeat();
    advance(HOUR - Duration::from_millis(1)).await;
    frozen.resume_heartbeat();
    advance(2 * HOUR).await;
    assert!((&mut lost).now_or_never().is_none(), "it resumed in time");
    a.ok().await.unwrap();

    let lost = b.lease_lost();
    frozen.pause_heartbeat();
    timeout(HOUR, lost).await.expect("the lease ends after an hour of silence");
    let error = b.ok().await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::LeaseLost, Some(Operation::Settle)));
    assert_eq!(payloads(&queue.pending("s").unwrap()), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn crashed_consumer_stays_dead_whatever_becomes_of_its_subscription() {
    let queue = queue(|s| s).await;
    let crashed = queue.subscription(Subscription::new("s", "t"));
    crashed.crash();
    queue.delete_subscription("s").await.unwrap();
    crashed.insert_subscription().await.unwrap();
    publish(&queue, &["a"]).await;
    drop(fetch(&crashed).await);
    crashed.resume_heartbeat();
    advance(Duration::from_secs(6)).await;
    assert_eq!(payloads(&queue.pending("s").unwrap()), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_when_a_message_dies_with_its_consumer() {
    let queue = queue(|s| s.with_backoff(Backoff::default().with_max_attempts(1))).await;
    let ids = publish(&queue, &["a"]).await;
    let crashed = queue.subscription(Subscription::new("s", "t"));
    let held = fetch(&crashed).await;
    let (died, _, ()) = tokio::join!(
        timeout(HOUR, queue.wait_acked("s", &ids[0])),
        timeout(HOUR, queue.idle("s")).map(|idle| idle.expect("nothing is in flight any more")),
        async { crashed.crash() },
    );
    assert_eq!(died.expect("it is dead").unwrap_err().kind(), ErrorKind::Conflict);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn what_was_due_before_a_subscription_is_not_for_it() {
    let queue = queue(|s| s).await;
    queue.publish_one("t", NewMessage::new("early").with_delay(HOUR)).await.unwrap();
    advance(2 * HOUR).await;
    queue.insert_subscription(&Subscription::new("late", "t")).await.unwrap();
    assert!(queue.pending("late").unwrap().is_empty());
    assert_eq!(payloads(&queue.pending("s").unwrap()), ["early"]);
}

#[tokio::test(start_paused = true)]
async fn successor_of_another_sort_ends_the_streams() {
    let queue = queue(|s| s).await;
    let mut stream = subscribe(queue.subscription(Subscription::new("s", "t"))).await.unwrap();
    assert!(stream.next().now_or_never().is_none());
    queue.delete_subscription("s").await.unwrap();
    queue.insert_subscription(&Subscription::new("s", "t").with_order(Order::Total)).await.unwrap();
    publish(&queue, &["a"]).await;
    assert_eq!(stream.next().await.unwrap().unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test(start_paused = true)]
async fn redriven_messages_stay_behind_what_waited() {
    let total = |s: Subscription| s.with_order(Order::Total).with_backoff(Backoff::fixed(Duration::ZERO));
    let queue = queue(|s| total(s).with_batch(4)).await;
    publish(&queue, &["dead", "b", "c", "d"]).await;
    let driver = queue.subscription(total(Subscription::new("s", "t")));
    queue.alter_subscription(&total(Subscription::new("s", "t"))).await.unwrap();
    fetch(&driver).await.settle(Ack::reject("bad")).await.unwrap();
    queue.redrive("s").await.unwrap();

    queue.alter_subscription(&total(Subscription::new("s", "t")).with_batch(4)).await.unwrap();
    let all = fetch(&driver).await;
    assert_eq!(payloads(all.messages()), ["b", "c", "d", "dead"]);
    assert_eq!(all.messages()[3].last_delivered_at(), None, "it starts anew");
    all.requeue().await.unwrap();
    queue.alter_subscription(&total(Subscription::new("s", "t")).with_batch(3)).await.unwrap();
    for run in [&["b", "c", "d"][..], &["dead"]] {
        let delivery = fetch(&driver).await;
        assert_eq!(payloads(delivery.messages()), run);
        delivery.ok().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn dead_letters_are_listed_redriven_and_purged() {
    let queue = queue(|s| s.with_backoff(Backoff::fixed(Duration::ZERO).with_max_attempts(2))).await;
    let ids = publish(&queue, &["a", "b", "c"]).await;
    let handler = async |_: Job<String>| Ok::<_, &str>(Ack::Ok);
    queue.drain("s", handler).await.unwrap();

    let dead = queue.dead_letters("s").await.unwrap();
    assert_eq!(dead.iter().map(|dead| dead.message.attempt()).collect::<Vec<_>>(), [2, 2, 2]);
    assert!(dead[0].reason.contains("message 1 cannot be read as alloc::string::String"), "{}", dead[0].reason);

    queue.redrive_one("s", &ids[1]).await.unwrap();
    assert_eq!(payloads(&queue.pending("s").unwrap()), ["b"]);
    assert_eq!(queue.redrive_one("s", &ids[1]).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!((queue.purge_dead_letters("s").await.unwrap(), queue.redrive("s").await.unwrap()), (2, 0));
    let driver = queue.subscription(Subscription::new("s", "t"));
    assert_eq!(fetch(&driver).await.message().attempt(), 1, "it starts anew");
}

#[tokio::test(start_paused = true)]
async fn topics_and_subscriptions_are_created_altered_listed_and_deleted() -> Result<()> {
    let queue = queue(|s| s).await;
    queue.create_topic(Topic::new("t").with_dedup_window(HOUR)).await?;
    assert_eq!(queue.topic("t").await?.dedup_window(), HOUR);
    let error = queue.create_topic(Topic::new("t").with_buckets(4)).await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Conflict, Some(Operation::Manage)));
    assert_eq!(queue.create_topic(Topic::new("u").with_buckets(0)).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(queue.topics().await?.len(), 1);

    queue.alter_subscription(&Subscription::new("s", "t").with_batch(7)).await?;
    assert_eq!(queue.subscriptions().await?[0].batch(), 7);
    let total = Subscription::new("s", "t").with_order(Order::Total);
    assert_eq!(queue.insert_subscription(&total).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(queue.alter_subscription(&Subscription::new("x", "t")).await.unwrap_err().kind(), ErrorKind::NotFound);

    let mut stream = subscribe(queue.subscription(Subscription::new("s", "t"))).await?;
    let (item, ()) = tokio::join!(stream.next(), async { queue.delete_topic("t").await.unwrap() });
    assert_eq!(item.unwrap().unwrap_err().kind(), ErrorKind::NotFound, "its consumers are told");
    assert!(queue.topics().await?.is_empty() && queue.subscriptions().await?.is_empty());
    assert_eq!(queue.delete_subscription("s").await.unwrap_err().kind(), ErrorKind::NotFound);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_late_subscription_is_served_at_once_while_others_work() {
    let queue = queue(|s| s).await;
    let mut others = subscribe(queue.subscription(Subscription::new("s", "t"))).await.unwrap();
    let _busy = tokio::spawn({
        let queue = queue.clone();
        async move {
            loop {
                publish(&queue, &["a"]).await;
                others.next().await.unwrap().unwrap().ok().await.unwrap();
                tokio::task::yield_now().await;
            }
        }
    });
    let began = Instant::now();
    for order in [Order::Unordered, Order::ByKey, Order::Total, Order::StableTotal] {
        let late = Subscription::new(order.to_string(), "t").with_order(order);
        let mut stream = subscribe(queue.subscription(late)).await.unwrap();
        assert!(stream.next().await.unwrap().is_ok());
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
}
