//! Spans, as an exporter of OpenTelemetry gets them.

use std::sync::LazyLock;

use futures::TryStreamExt;
use opentelemetry::{
    Value,
    trace::{SpanId, Status, TracerProvider},
};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use pgqueue_core::{
    Ack, Backoff, BoxError, Job, NewMessage, Publisher, PublisherExt, Subscription, SubscriptionDriver, Topic, Worker,
    subscribe,
};
use pgqueue_memory::MemoryQueue;
use pgqueue_postgres::{Client, PgQueue};
use pgqueue_sqlx::Sqlx;
use pgqueue_tests::migrated;
use pgqueue_tokio_postgres::TokioPostgres;
use tracing::{Instrument, info_span};
use tracing_subscriber::{filter::LevelFilter, layer::SubscriberExt};

use crate::dead_letters;

/// Where all spans of this process go; each test has a topic of its own.
static EXPORTED: LazyLock<InMemorySpanExporter> = LazyLock::new(|| {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("tests"));
    let subscriber = tracing_subscriber::registry().with(LevelFilter::DEBUG).with(layer).with(dead_letters::Listening);
    tracing::subscriber::set_global_default(subscriber).expect("nobody else listens");
    exporter
});

/// Exports what follows.
pub(crate) fn export() {
    LazyLock::force(&EXPORTED);
}

/// The spans of this name that have ended, in the order in which they did.
fn ended(name: &str) -> Vec<SpanData> {
    let spans = EXPORTED.get_finished_spans().expect("an exporter that goes on");
    spans.into_iter().filter(|span| span.name == name).collect()
}

fn attribute(span: &SpanData, key: &str) -> Option<Value> {
    span.attributes.iter().find(|attribute| attribute.key.as_str() == key).map(|attribute| attribute.value.clone())
}

/// Handles so many messages, in a worker that then stops.
async fn handle(driver: impl SubscriptionDriver, messages: usize, fails: bool) {
    let (done, mut handled) = tokio::sync::mpsc::channel(messages);
    let handler = move |job: Job<serde_json::Value>| {
        let done = done.clone();
        async move {
            async {}
                .instrument(info_span!("work", otel.name = %format_args!("work on {}", job.message().topic())))
                .await;
            done.send(()).await.unwrap();
            if fails { Err("it does not work".into()) } else { Ok::<_, BoxError>(Ack::Ok) }
        }
    };
    let stop = async move {
        for _ in 0..messages {
            handled.recv().await;
        }
    };
    Worker::new(subscribe(driver).await.unwrap().until(stop), handler).run().await.unwrap();
}

/// The span of a handler, in the trace of the request whose message it handles.
async fn is_in_the_trace(queue: &impl Publisher, driver: impl SubscriptionDriver, topic: &str) {
    let request = info_span!("request", otel.name = %format_args!("request {topic}"));
    driver.insert_subscription().await.unwrap();
    queue.publish_one(topic, NewMessage::json("secret").unwrap()).instrument(request.clone()).await.unwrap();
    drop(request);
    handle(driver, 1, false).await;

    let [request] = &ended(&format!("request {topic}"))[..] else { panic!("one request") };
    let [publish] = &ended(&format!("send {topic}"))[..] else { panic!("one call that publishes") };
    let [process] = &ended(&format!("process {topic}"))[..] else { panic!("one delivery") };
    let [work] = &ended(&format!("work on {topic}"))[..] else { panic!("one run of the handler") };
    assert_eq!(publish.parent_span_id, request.span_context.span_id());
    let [link] = &process.links[..] else { panic!("one publisher: {:?}", process.links) };
    let ids = |span: &opentelemetry::trace::SpanContext| (span.trace_id(), span.span_id());
    assert_eq!(ids(&link.span_context), ids(&publish.span_context));
    assert_eq!(process.parent_span_id, publish.span_context.span_id());
    assert_eq!(work.parent_span_id, process.span_context.span_id());
    assert_eq!(work.span_context.trace_id(), request.span_context.trace_id());
    let said = |key: &str| attribute(process, key).unwrap_or_else(|| panic!("{key} in {process:?}"));
    assert_eq!(said("messaging.system"), "pgqueue".into());
    assert_eq!(said("messaging.operation.type"), "process".into());
    assert_eq!(said("messaging.destination.name"), topic.to_owned().into());
    assert_eq!(said("messaging.destination.subscription.name"), "invoices".into());
    assert!(attribute(process, "messaging.message.id").is_some());
    assert!(!format!("{:?}", EXPORTED.get_finished_spans()).contains("secret"), "no payload is in any span");
}

async fn is_in_the_trace_on_postgres<C: Client>(topic: &str) {
    export();
    let database = migrated::<C>().await.unwrap();
    let queue = PgQueue::<C>::connect(&database.url()).await.unwrap();
    queue.create_topic(Topic::new(topic)).await.unwrap();
    is_in_the_trace(&queue, queue.subscription(Subscription::new("invoices", topic)), topic).await;
    assert!(!ended("receive invoices").is_empty(), "claims are spans");
    assert!(!ended("settle invoices").is_empty(), "so are answers");
}

#[tokio::test]
async fn handler_is_in_the_trace_of_its_publisher_in_memory() {
    export();
    let queue = queue_in_memory("in memory").await;
    is_in_the_trace(&queue, queue.subscription(Subscription::new("invoices", "in memory")), "in memory").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handler_is_in_the_trace_of_its_publisher_through_tokio_postgres() {
    is_in_the_trace_on_postgres::<TokioPostgres>("tokio-postgres").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handler_is_in_the_trace_of_its_publisher_through_sqlx() {
    is_in_the_trace_on_postgres::<Sqlx>("sqlx").await;
}

async fn queue_in_memory(topic: &str) -> MemoryQueue {
    let queue = MemoryQueue::new();
    queue.create_topic(Topic::new(topic)).await.unwrap();
    queue
}

#[tokio::test]
async fn batch_is_linked_to_all_its_publishers() {
    export();
    let queue = queue_in_memory("batches").await;
    let subscription = Subscription::new("invoices", "batches").with_batch(10);
    queue.insert_subscription(&subscription).await.unwrap();
    for _ in 0..3 {
        queue.publish_json("batches", &1).await.unwrap();
    }
    handle(queue.subscription(subscription), 1, false).await;
    let publishers: Vec<SpanId> = ended("send batches").iter().map(|span| span.span_context.span_id()).collect();
    let [process] = &ended("process batches")[..] else { panic!("one batch") };
    assert_eq!(process.links.iter().map(|link| link.span_context.span_id()).collect::<Vec<_>>(), publishers);
    assert_eq!(process.parent_span_id, SpanId::INVALID);
}

#[tokio::test]
async fn delivery_that_fails_is_an_error_in_its_trace() {
    export();
    let queue = queue_in_memory("failures").await;
    let subscription = Subscription::new("invoices", "failures").with_backoff(Backoff::default().with_max_attempts(1));
    queue.insert_subscription(&subscription).await.unwrap();
    queue.publish_json("failures", &1).await.unwrap();
    handle(queue.subscription(subscription), 1, true).await;
    let [process] = &ended("process failures")[..] else { panic!("one delivery") };
    assert_eq!(attribute(process, "error.type"), Some("Handler".into()));
    assert!(matches!(process.status, Status::Error { .. }), "{:?}", process.status);
}

#[tokio::test]
async fn trace_that_a_message_has_stays() {
    export();
    let queue = queue_in_memory("relays").await;
    let mut stream = subscribe(queue.subscription(Subscription::new("invoices", "relays"))).await.unwrap();
    let theirs = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    queue.publish_one("relays", NewMessage::new("1").with_header("traceparent", theirs)).await.unwrap();
    let delivery = stream.try_next().await.unwrap().unwrap();
    assert_eq!(delivery.message().headers()["traceparent"], theirs);
    delivery.ok().await.unwrap();
}
