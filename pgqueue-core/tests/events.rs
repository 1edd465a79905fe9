//! What is said to whoever listens to `tracing`: alone in a process, and one at a time, as a place that speaks asks only once who
//! listens.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected should stop there")]

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use futures::StreamExt;
use pgqueue_core::{
    Ack, BoxError, Job, Position, PublisherExt, Start, Subscription, Topic, Worker, WorkerPool, subscribe,
};
use pgqueue_core::{CheckpointStore, Order};
use pgqueue_memory::MemoryQueue;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

/// Who listens now.
static LISTENING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Writes down the fields of events.
#[derive(Clone)]
struct Events {
    target: &'static str,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Events {
    /// Hears those whose target begins so.
    fn of(target: &'static str) -> Self {
        Self { target, heard: Arc::default() }
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    /// The texts of the events, each with the fields that these names begin.
    fn said(&self, fields: &[&str]) -> Vec<String> {
        let mut said: Vec<String> = Vec::new();
        for field in self.heard() {
            match field.strip_prefix("message=") {
                Some(text) => said.push(text.to_owned()),
                None if fields.iter().any(|wanted| field.starts_with(wanted)) => {
                    let last = said.last_mut().unwrap();
                    *last = format!("{last}, {field}");
                }
                None => {}
            }
        }
        said
    }
}

impl Visit for Events {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.heard.lock().unwrap().push(format!("{field}={value:?}"));
    }
}

impl Subscriber for Events {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with(self.target)
    }

    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[tokio::test(start_paused = true)]
async fn deliveries_and_their_answers_are_said() {
    let _alone = LISTENING.lock().await;
    let events = Events::of("pgqueue_core::delivery");
    let _subscribed = tracing::subscriber::set_default(events.clone());
    let queue = MemoryQueue::new();
    queue.create_topic(Topic::new("orders")).await.unwrap();
    let mut stream = subscribe(queue.subscription(Subscription::new("invoices", "orders"))).await.unwrap();
    let id = queue.publish_json("orders", "secret").await.unwrap();
    for ack in [Ack::requeue_after(std::time::Duration::ZERO), Ack::reject("no")] {
        stream.next().await.unwrap().unwrap().settle(ack).await.unwrap();
    }
    queue.publish_json("orders", "secret").await.unwrap();
    stream.next().await.unwrap().unwrap().ok().await.unwrap();

    let said = events.said(&["answer"]);
    let out = "a delivery was handed out";
    let settled = |answer: &str| format!("a delivery was settled, answer={answer:?}");
    assert_eq!(said, [out, &settled("requeue"), out, &settled("reject"), out, &settled("ok")]);
    let heard = events.heard();
    assert!(heard.contains(&format!("messaging.message.id={id}")), "{heard:?}");
    assert!(heard.contains(&"messaging.destination.name=\"orders\"".to_owned()), "{heard:?}");
    assert!(!heard.iter().any(|field| field.contains("secret")), "{heard:?}");
}

#[tokio::test(start_paused = true)]
async fn what_becomes_of_pools_is_said() {
    let _alone = LISTENING.lock().await;
    let events = Events::of("pgqueue_core::pool");
    let _subscribed = tracing::subscriber::set_default(events.clone());
    let queue = MemoryQueue::new();
    queue.create_topic(Topic::new("orders")).await.unwrap();
    let driver = move || queue.subscription(Subscription::new("invoices", "orders"));
    let handler = async |_: Job<String>| Ok::<_, BoxError>(Ack::Ok);
    let pool = WorkerPool::new(driver, move |stream| Worker::new(stream, handler).run()).with_size(2);
    pool.start().await.unwrap();
    pool.resize(2).unwrap();
    pool.resize(3).unwrap();
    pool.stop().await.unwrap();
    pool.stop().await.unwrap();
    assert_eq!(
        events.said(&["workers"]),
        ["a pool was started, workers=2", "a pool was resized, workers=3", "a pool was asked to stop"]
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_managed_is_said() {
    let _alone = LISTENING.lock().await;
    let events = Events::of("pgqueue_memory");
    let _subscribed = tracing::subscriber::set_default(events.clone());
    let queue = MemoryQueue::new();
    queue.create_topic(Topic::new("orders")).await.unwrap();
    let totals = Subscription::new("totals", "orders").with_order(Order::StableTotal);
    queue.insert_subscription(&totals).await.unwrap();
    queue.advance_checkpoint("totals", &Position::new("1")).await.unwrap();
    queue.advance_checkpoint("totals", &Position::new("1")).await.unwrap();
    queue.reset_checkpoint("totals", &Position::new("1"), None).await.unwrap();
    queue.seek("totals", &Start::Now).await.unwrap();
    queue.delete_subscription("totals").await.unwrap();
    queue.delete_subscription("totals").await.unwrap_err();
    queue.delete_topic("orders").await.unwrap();
    assert_eq!(
        events.said(&["name"]),
        [
            "a topic was created, name=\"orders\"",
            "a subscription was inserted, name=\"totals\"",
            "a checkpoint was advanced, name=\"totals\"",
            "a checkpoint was reset, name=\"totals\"",
            "a subscription was moved, name=\"totals\"",
            "a subscription was deleted, name=\"totals\"",
            "a topic was deleted, name=\"orders\"",
        ]
    );
}
