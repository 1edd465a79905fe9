//! Metrics: what is counted is what the documentation names, and the dashboard asks for nothing else.

use std::{collections::BTreeSet, time::Duration};

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use pgqueue_core::{
    Ack, Backoff, BoxError, Job, PublisherExt, RetryConfig, RetryPolicy, Subscription, Topic, Worker, subscribe,
};
use pgqueue_postgres::{Options, PgQueue};
use pgqueue_sqlx::Sqlx;
use pgqueue_tests::{migrated, until};
use pgqueue_testserver::Proxy;

const DASHBOARD: &str = include_str!("../../docs/grafana.json");
const DOCUMENTATION: &str = include_str!("../../pgqueue-core/src/telemetry.rs");

/// The names of metrics that a text holds. What Prometheus makes of a histogram counts as its name.
fn names_in(text: &str) -> BTreeSet<&str> {
    let of_a_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let words = text.split(|c: char| !of_a_name(c)).filter(|word| word.starts_with("pgqueue_"));
    let metric = |word: &str| ["total", "seconds", "messages", "consumers"].iter().any(|unit| word.ends_with(unit));
    words
        .map(|word| ["_bucket", "_sum", "_count"].iter().find_map(|part| word.strip_suffix(part)).unwrap_or(word))
        .filter(|word| metric(word))
        .collect()
}

/// A metric's name, its labels, and its count or value; of a histogram how often something was recorded.
type Counted = (String, Vec<(String, String)>, f64);

fn names(counted: &[Counted]) -> BTreeSet<&str> {
    counted.iter().map(|(name, ..)| name.as_str()).collect()
}

fn counted(snapshotter: &Snapshotter) -> Vec<Counted> {
    let all = snapshotter.snapshot().into_vec();
    let read = all.into_iter().map(|(key, _, _, value)| {
        let labels = key.key().labels().map(|label| (label.key().to_owned(), label.value().to_owned())).collect();
        #[expect(clippy::cast_precision_loss, reason = "few are counted")]
        let value = match value {
            DebugValue::Counter(count) => count as f64,
            DebugValue::Gauge(value) => value.into_inner(),
            DebugValue::Histogram(values) => values.len() as f64,
        };
        (key.key().name().to_owned(), labels, value)
    });
    read.collect()
}

/// How much was counted with a label.
fn sum(counted: &[Counted], name: &str, label: &str, value: &str) -> f64 {
    let is_it = |labels: &[(String, String)]| labels.contains(&(label.to_owned(), value.to_owned()));
    counted.iter().filter(|(each, labels, _)| each == name && is_it(labels)).map(|(.., value)| value).sum()
}

/// Collects what is counted, until there is such.
async fn until_counted(
    snapshotter: &Snapshotter,
    seen: &mut Vec<Counted>,
    such: impl Fn(&[Counted]) -> bool + Send + Sync,
) {
    until(async || {
        seen.extend(counted(snapshotter)); // a counter is reset when it is looked at
        if such(seen) { Ok(()) } else { Err(format!("more than {:?}", names(seen))) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_documented_is_counted_and_shown_and_nothing_else() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();

    let database = migrated::<Sqlx>().await.unwrap();
    let proxy = Proxy::start(database.server().port()).await.unwrap();
    // Who looks often meets the outage.
    let often = Options::new().with_poll_interval(Duration::from_millis(100));
    let queue = PgQueue::<Sqlx>::connect(&database.url_at(proxy.port())).await.unwrap().with_options(often).unwrap();
    queue.create_topic(Topic::new("orders")).await.unwrap();
    let subscription = Subscription::new("invoices", "orders").with_backoff(Backoff::fixed(Duration::ZERO));
    let handler = async |job: Job<u32>| match (job.value, job.message().attempt()) {
        (1, 1) => Err::<Ack, BoxError>("the first attempt fails".into()),
        (1, _) => Ok(Ack::Ok),
        _ => Ok(Ack::reject("it is no good")),
    };
    let patient = RetryPolicy::new(u32::MAX, Duration::from_millis(50)).with_cap(Duration::from_millis(50));
    let retry = RetryConfig::default().with_connection(Some(patient)).with_query(Some(patient));
    let stream = subscribe(queue.subscription(subscription)).await.unwrap().with_retry(retry);
    let worker = tokio::spawn(Worker::new(stream, handler).run());
    let uncut = PgQueue::<Sqlx>::connect(&database.url()).await.unwrap();
    uncut.publish_json("orders", &1).await.unwrap();
    uncut.publish_json("orders", &2).await.unwrap();

    let documentation: String = DOCUMENTATION.lines().filter(|line| line.starts_with("//!")).collect();
    let documented = names_in(&documentation);
    let mut seen = Vec::new();
    let done = |seen: &[Counted]| {
        let given_up = sum(seen, "pgqueue_dead_letters_total", "topic", "orders");
        given_up >= 1.0 && sum(seen, "pgqueue_settled_messages_total", "answer", "ok") >= 1.0
    };
    until_counted(&snapshotter, &mut seen, done).await;
    proxy.cut().await;
    until_counted(&snapshotter, &mut seen, |seen| names(seen).contains("pgqueue_interruptions_total")).await;
    proxy.restore().await.unwrap();
    until_counted(&snapshotter, &mut seen, |seen| names(seen).contains("pgqueue_reconnects_total")).await;
    uncut.stats("invoices").await.unwrap().record();
    until_counted(&snapshotter, &mut seen, |seen| names(seen).is_superset(&documented)).await;
    worker.abort();

    assert_eq!(names(&seen), documented, "what is counted is what is documented");
    assert_eq!(names_in(DASHBOARD), documented, "and what is shown");
    assert!((sum(&seen, "pgqueue_published_messages_total", "topic", "orders") - 2.0).abs() < f64::EPSILON);
    assert!((sum(&seen, "pgqueue_dead_letters_total", "topic", "orders") - 1.0).abs() < f64::EPSILON);
    assert!(sum(&seen, "pgqueue_settled_messages_total", "answer", "ok") >= 1.0);
    assert!(sum(&seen, "pgqueue_settled_messages_total", "answer", "requeue") >= 1.0);
    assert!(sum(&seen, "pgqueue_failures_total", "error", "Handler") >= 1.0);
    assert!(sum(&seen, "pgqueue_delivered_messages_total", "subscription", "invoices") >= 2.0);
    assert!(sum(&seen, "pgqueue_redelivered_messages_total", "subscription", "invoices") >= 1.0);
}
