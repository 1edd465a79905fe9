//! A handler that stops its worker: nothing is handled after it, and nothing is lost.

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use async_trait::async_trait;
use pgqueue_core::{
    Ack, BoxError, Delivery, ErrorKind, Job, Message, NewMessage, OnRequeue, Outcome, Publisher, Result, Subscription,
    SubscriptionDriver, Topic, Wakeups, Worker, subscribe,
};
use pgqueue_memory::{MemoryQueue, MemorySubscription};
use tokio::time::sleep;

use crate::{
    script::{Script, fails, one, seconds},
    store::Event::*,
};

/// A queue in which subscription `counter` waits for these words.
async fn waiting(words: &[&str]) -> MemoryQueue {
    let queue = MemoryQueue::new();
    queue.create_topic(Topic::new("words")).await.unwrap();
    queue.insert_subscription(&Subscription::new("counter", "words")).await.unwrap();
    queue.publish("words", words.iter().map(|word| NewMessage::json(word).unwrap()).collect()).await.unwrap();
    queue
}

fn consumer(queue: &MemoryQueue) -> MemorySubscription {
    queue.subscription(Subscription::new("counter", "words"))
}

/// Consumes until a "stop", at most for a minute, and counts each "inc".
async fn count(driver: impl SubscriptionDriver) -> u32 {
    let count = AtomicU32::new(0);
    let handler = async |job: Job<String>| match &*job.value {
        "stop" => Ok(Outcome::Stop(Ack::Ok)),
        "inc" => {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(Ack::Ok.into())
        }
        _ => Err("not a word of ours"),
    };
    let stream = subscribe(driver).await.unwrap().until(sleep(seconds(60)));
    Worker::new(stream, handler).with_concurrency(1).run().await.unwrap();
    count.into_inner()
}

fn texts(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|message| message.json().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn nothing_is_handled_after_a_stop_and_the_rest_waits_for_the_next_consumer() {
    let queue = waiting(&["inc", "inc", "stop", "inc", "inc", "inc", "stop"]).await;
    assert_eq!(count(consumer(&queue)).await, 2);
    assert_eq!(texts(&queue.acked("counter").unwrap()), ["inc", "inc", "stop"]);
    assert_eq!(texts(&queue.pending("counter").unwrap()), ["inc", "inc", "inc", "stop"]);
    assert_eq!(count(consumer(&queue)).await, 3);
}

/// Takes all that is pending at once, and hands it out one by one.
struct Prefetching {
    driver: MemorySubscription,
    fetched: Mutex<VecDeque<Delivery>>,
}

#[async_trait]
impl SubscriptionDriver for Prefetching {
    async fn insert_subscription(&self) -> Result<()> {
        self.driver.insert_subscription().await
    }

    async fn listen(&self) -> Result<Wakeups> {
        self.driver.listen().await
    }

    async fn fetch_pending(&self) -> Result<Option<Delivery>> {
        while let Some(delivery) = self.driver.fetch_pending().await? {
            self.fetched.lock().unwrap().push_back(delivery);
        }
        Ok(self.fetched.lock().unwrap().pop_front())
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_fetched_ahead_of_a_stop_is_not_handled_and_goes_back() {
    let queue = waiting(&["inc", "inc", "stop", "inc", "inc", "inc", "stop"]).await;
    let prefetching = Prefetching { driver: consumer(&queue), fetched: Mutex::default() };
    assert_eq!(count(prefetching).await, 2);
    assert_eq!(queue.in_flight("counter").unwrap().len(), 0);
    assert_eq!(texts(&queue.pending("counter").unwrap()), ["inc", "inc", "inc", "stop"]);
    assert_eq!(count(consumer(&queue)).await, 3);
}

#[tokio::test(start_paused = true)]
async fn the_stream_is_closed_before_the_last_message_is_settled() {
    for concurrency in [1, 2, 16] {
        let settling = async {
            sleep(seconds(7)).await;
            Ok(())
        };
        let (store, stream) = Script::default().fetch(one(1)).settle(settling).subscribe().await;
        let handler = async |job: Job<u32>| {
            store.log(Handle(job.value));
            Ok::<_, BoxError>(Outcome::Stop(Ack::Ok))
        };
        Worker::new(stream, handler).with_concurrency(concurrency).run().await.unwrap();
        assert_eq!(store.seconds(&Unlisten), [0]);
        assert_eq!(store.events(), [Fetch, Handle(1), Settle(1, Ack::Ok), Unlisten]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_closes_the_stream_also_when_all_handlers_are_busy() {
    let (store, stream) = Script::default().fetch(one(1)).fetch(one(2)).subscribe().await;
    let handler = async |job: Job<u32>| {
        sleep(seconds(job.value.into())).await;
        Ok::<_, BoxError>(if job.value == 1 { Outcome::Stop(Ack::Ok) } else { Ack::Ok.into() })
    };
    Worker::new(stream, handler).with_concurrency(2).run().await.unwrap();
    assert_eq!(store.seconds(&Unlisten), [1]);
    assert_eq!(store.events(), [Fetch, Fetch, Settle(1, Ack::Ok), Unlisten, Settle(2, Ack::Ok)]);
}

#[tokio::test(start_paused = true)]
async fn a_handler_in_flight_that_fails_after_a_stop_ends_the_run_as_the_policy_says() {
    for (policy, ends) in [(OnRequeue::Continue, Ok(())), (OnRequeue::Stop, Err(ErrorKind::Handler))] {
        let (store, stream) = Script::default().fetch(one(1)).fetch(one(2)).subscribe().await;
        let handler = async |job: Job<u32>| {
            sleep(seconds(job.value.into())).await;
            if job.value == 1 { Ok(Outcome::Stop(Ack::Ok)) } else { Err("out of beans") }
        };
        let ended = Worker::new(stream.on_requeue(policy), handler).run().await;
        assert_eq!(ended.map_err(|error| error.kind()), ends);
        assert_eq!(store.events(), [Fetch, Fetch, Fetch, Settle(1, Ack::Ok), Unlisten, Settle(2, Ack::requeue())]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_settles_its_message_by_its_ack() {
    for ack in [Ack::Ok, Ack::requeue_after(seconds(7)), Ack::reject("not for us")] {
        for policy in [OnRequeue::Continue, OnRequeue::Stop] {
            let (store, stream) = Script::default().fetch(one(1)).subscribe().await;
            let handler = async |_: Job<u32>| Ok::<_, BoxError>(Outcome::Stop(ack.clone()));
            Worker::new(stream.on_requeue(policy), handler).run().await.unwrap();
            assert_eq!(store.events(), [Fetch, Settle(1, ack.clone()), Unlisten]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_took_the_delivery_stops_too() {
    let (store, stream) = Script::default().fetch(one(1)).subscribe().await;
    let handler = async |job: Job<u32>| {
        job.take_delivery()?.1.ok().await?;
        Ok::<_, BoxError>(Outcome::Stop(Ack::requeue()))
    };
    Worker::new(stream, handler).run().await.unwrap();
    assert_eq!(store.events(), [Fetch, Settle(1, Ack::Ok), Unlisten]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_whose_settlement_fails_stops_and_is_reported() {
    for (policy, ends) in [(OnRequeue::Continue, Ok(())), (OnRequeue::Stop, Err(ErrorKind::LeaseLost))] {
        let script = Script::default().fetch(one(1)).settle(fails(ErrorKind::LeaseLost));
        let (store, stream) = script.subscribe().await;
        let handler = async |_: Job<u32>| Ok::<_, BoxError>(Outcome::Stop(Ack::Ok));
        let worker = Worker::new(stream.on_requeue(policy), handler).on_error(store.report());
        assert_eq!(worker.run().await.map_err(|error| error.kind()), ends);
        let events = store.events();
        assert!(events.contains(&Report(1, ErrorKind::LeaseLost)), "{events:?}");
        assert_eq!(events.iter().filter(|event| **event == Fetch).count(), 1, "{events:?}");
    }
}
