//! What is said to whoever listens to `tracing`: alone in a process, and one at a time, as a place that speaks asks only once who
//! listens.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected should stop there")]

#[path = "support/heard.rs"]
mod heard;

use futures::StreamExt;
use pgqueue_core::{
    Ack, BoxError, CheckpointStore, Job, NewMessage, Order, Position, Publisher, PublisherExt, Start, Subscription,
    Topic, Worker, WorkerPool, subscribe,
};
use pgqueue_memory::MemoryQueue;

use crate::heard::Heard;

/// Who listens now.
static LISTENING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The texts of the events, each with the fields that these names begin.
fn said(events: &Heard, fields: &[&str]) -> Vec<String> {
    let mut said: Vec<String> = Vec::new();
    for field in events.fields() {
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

#[tokio::test(start_paused = true)]
async fn deliveries_and_their_answers_are_said() {
    let _alone = LISTENING.lock().await;
    let events = Heard::of("pgqueue_core::telemetry");
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

    let said = said(&events, &["answer"]);
    let out = "a delivery was handed out";
    let settled = |answer: &str| format!("a delivery was settled, answer={answer:?}");
    let given_up = "a message was given up";
    assert_eq!(said, [out, &settled("requeue"), out, given_up, &settled("reject"), out, &settled("ok")]);
    let heard = events.fields();
    assert!(heard.contains(&format!("messaging.message.id={id}")), "{heard:?}");
    assert!(heard.contains(&"messaging.destination.name=\"orders\"".to_owned()), "{heard:?}");
    assert!(!heard.iter().any(|field| field.contains("secret")), "{heard:?}");
}

#[tokio::test(start_paused = true)]
async fn what_becomes_of_pools_is_said() {
    let _alone = LISTENING.lock().await;
    let events = Heard::of("pgqueue_core::pool");
    let _subscribed = tracing::subscriber::set_default(events.clone());
    let queue = MemoryQueue::new();
    queue.create_topic(Topic::new("orders")).await.unwrap();
    let driver = move || queue.subscription(Subscription::new("invoices", "orders"));
    let handler = async |_: Job<String>| Ok::<_, BoxError>(Ack::Ok);
    let pool = WorkerPool::new(driver, move |stream| Worker::new(stream, handler).run()).with_size(2);
    pool.start().await.unwrap();
    pool.resize(2).unwrap();
    while pool.status().workers < 2 {
        tokio::task::yield_now().await;
    }
    pool.resize(3).unwrap();
    while pool.status().workers < 3 {
        tokio::task::yield_now().await;
    }
    pool.stop().await.unwrap();
    pool.stop().await.unwrap();
    assert_eq!(
        said(&events, &["workers"]),
        ["a pool was started, workers=2", "a pool was resized, workers=3", "a pool was asked to stop"]
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_managed_is_said() {
    let _alone = LISTENING.lock().await;
    let events = Heard::of("pgqueue_memory");
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
        said(&events, &["name"]),
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

#[tokio::test(start_paused = true)]
async fn what_a_report_has_of_a_failure_is_said() {
    let _alone = LISTENING.lock().await;
    let events = Heard::of("pgqueue_core::failure");
    let _subscribed = tracing::subscriber::set_default(events.clone());
    let queue = MemoryQueue::new();
    queue.create_topic(Topic::new("orders")).await.unwrap();
    let full = NewMessage::new("\"4111\"")
        .with_key("customer-4")
        .with_kind("order.paid")
        .with_header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .with_header("token", "s3cret");
    let stream = subscribe(queue.subscription(Subscription::new("invoices", "orders"))).await.unwrap();
    let [first, second] =
        <[_; 2]>::try_from(queue.publish("orders", vec![full, NewMessage::new("\"\"")]).await.unwrap()).unwrap();
    let (report, mut reports) = tokio::sync::mpsc::channel(2);
    let both = async move {
        for _ in 0..2 {
            reports.recv().await.unwrap();
        }
    };
    let handler = async |job: Job<String>| match job.value.as_str() {
        "" => Err::<Ack, BoxError>("no beans".into()),
        _ => Err("out of beans".into()),
    };
    let worker = Worker::new(stream.until(both), handler);
    worker.on_error(move |_| report.try_send(()).unwrap()).run().await.unwrap();

    let mut heard = events.fields();
    let times = heard.extract_if(.., |field| field.starts_with("messaging.pgqueue.message.published_at=")).count();
    assert_eq!(times, 2);
    let full = [
        "message=a delivery failed".to_owned(),
        format!("error=\"handling a delivery: the handler failed on message {first}: out of beans\""),
        "error.type=Handler".to_owned(),
        "messaging.system=\"pgqueue\"".to_owned(),
        "messaging.destination.name=\"orders\"".to_owned(),
        format!("messaging.message.id={first}"),
        "messaging.batch.message_count=1".to_owned(),
        "messaging.pgqueue.message.position=00000000000000000001".to_owned(),
        "messaging.pgqueue.message.key=\"customer-4\"".to_owned(),
        "messaging.pgqueue.message.kind=\"order.paid\"".to_owned(),
        "messaging.pgqueue.message.attempt=1".to_owned(),
        "trace_id=\"0af7651916cd43dd8448eb211c80319c\"".to_owned(),
    ];
    let bare = [
        "message=a delivery failed".to_owned(),
        format!("error=\"handling a delivery: the handler failed on message {second}: no beans\""),
        "error.type=Handler".to_owned(),
        "messaging.system=\"pgqueue\"".to_owned(),
        "messaging.destination.name=\"orders\"".to_owned(),
        format!("messaging.message.id={second}"),
        "messaging.batch.message_count=1".to_owned(),
        "messaging.pgqueue.message.position=00000000000000000002".to_owned(),
        "messaging.pgqueue.message.attempt=1".to_owned(),
    ];
    assert_eq!(heard, [&full[..], &bare].concat());
}
