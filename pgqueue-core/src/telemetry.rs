//! What is said and counted of messages on their way.
//!
//! For whoever operates a service: below are the names. For authors of drivers, and of loops over a
//! [`ConsumeStream`](crate::ConsumeStream) by hand: the functions say and count what the queue on PostgreSQL does.
//!
//! # Spans
//! Through [`tracing`](https://docs.rs/tracing), with fields named by OpenTelemetry's
//! [conventions for messaging](https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/); payloads are in none.
//!
//! | span | level | covers |
//! |---|---|---|
//! | `publish` | `INFO` | a call that publishes |
//! | `process` | `INFO` | one delivery in a [`Worker`](crate::Worker): decoding, handling and settling it |
//! | `claim` | `DEBUG` | a driver's look for messages |
//! | `settle` | `DEBUG` | answers on their way to the store, of several deliveries perhaps |
//! | `chore` | `DEBUG` | what a driver does from time to time |
//!
//! What failed, what was settled, what was given up, and what was lost and found again is an event of its own.
//!
//! # Trace context
//! With the feature `opentelemetry`, and a layer of `tracing-opentelemetry` 0.34, the span that publishes goes with its messages, in
//! the headers `traceparent` and `tracestate` of [W3C Trace Context](https://www.w3.org/TR/trace-context/), unless a message has
//! its own. The span `process` is linked to it; of a delivery of one message, it is its child as well.
//!
//! # Metrics
//! With the feature `metrics`, through the [`metrics`](https://docs.rs/metrics) crate, for whatever exporter is installed. Times are in
//! seconds.
//!
//! | name | what | labels |
//! |---|---|---|
//! | `pgqueue_published_messages_total` | counter | `topic` |
//! | `pgqueue_publish_seconds` | histogram: until messages are durable, or sent in the caller's transaction | `topic` |
//! | `pgqueue_delivered_messages_total` | counter: handed out | `topic`, `subscription` |
//! | `pgqueue_redelivered_messages_total` | counter: of those, not for the first time | `topic`, `subscription` |
//! | `pgqueue_delivery_lag_seconds` | histogram: from publishing, by the queue's clock, to handing out, by this process's | `topic`, `subscription` |
//! | `pgqueue_handle_seconds` | histogram: a delivery in its handler | `topic`, `subscription` |
//! | `pgqueue_settle_seconds` | histogram: from an answer until it is durable | `topic`, `subscription` |
//! | `pgqueue_settled_messages_total` | counter | `topic`, `subscription`, `answer`: `ok`, `requeue` or `reject` |
//! | `pgqueue_dead_letters_total` | counter: messages that were given up, by a reject, after the last attempt, or as their consumers died of them. What the store did and could not tell any more is missing; `pgqueue_dead_messages` has all | `topic`, `subscription` |
//! | `pgqueue_failures_total` | counter: deliveries that failed, in their handler or when settled | `topic`, `subscription`, `error`: an [`ErrorKind`](crate::ErrorKind), such as `LeaseLost` |
//! | `pgqueue_interruptions_total` | counter: consuming failed and was tried again | `error` |
//! | `pgqueue_reconnects_total` | counter: the connection that listens was lost and is back | |
//! | `pgqueue_claim_seconds` | histogram: a driver's look for messages | `subscription` |
//! | `pgqueue_settle_call_seconds` | histogram: one call that brings answers to the store | `subscription` |
//! | `pgqueue_chore_seconds` | histogram | `chore`: `trim`, `sweep`, `keep`, `publish` of what was scheduled, `bury` of consumers that died |
//! | `pgqueue_waiting_messages`, `pgqueue_in_flight_messages`, `pgqueue_retrying_messages`, `pgqueue_dead_messages`, `pgqueue_held_back_messages`, `pgqueue_cut_messages`, `pgqueue_consumers`, `pgqueue_oldest_message_seconds` | gauges: what the [statistics](crate::SubscriptionStats) of a subscription say, when [recorded](crate::SubscriptionStats::record) | `subscription` |
//!
//! Gauges stay empty until somebody records them, now and then. A subscription that is not known, as its driver does not say it, is an
//! empty label. The [dashboard](https://grafana.com/docs/grafana/latest/dashboards/) in `docs/grafana.json` wants histograms with
//! buckets.

use std::{future::Future, time::SystemTime};

use tracing::{Instrument, Span, field::Empty};

#[cfg(feature = "metrics")]
use crate::SubscriptionStats;
use crate::{
    Delivery, Error, Message, MessageId, NewMessage, Result,
    job::Held,
    meter::{Stopwatch, count, time},
};

/// A span of the queue, with what each of them has.
macro_rules! span {
    ($level:ident, $name:literal, $($fields:tt)+) => {
        tracing::span!(
            tracing::Level::$level,
            $name,
            messaging.system = "pgqueue",
            otel.status_code = Empty,
            error.type = Empty,
            $($fields)+
        )
    };
}

/// Publishes messages through `publish`, in a span that goes with them.
///
/// # Errors
/// Those of `publish`.
///
/// # Cancel safety
/// As `publish`.
pub async fn publishing<T, F>(
    topic: &str,
    #[cfg_attr(not(feature = "opentelemetry"), expect(unused_mut, reason = "nothing goes with them"))]
    mut messages: Vec<NewMessage>,
    publish: impl FnOnce(Vec<NewMessage>) -> F + Send,
) -> Result<T>
where
    T: Send,
    F: Future<Output = Result<T>> + Send,
{
    let (count, watch) = (messages.len(), Stopwatch::start());
    let span = span!(
        INFO,
        "publish",
        otel.name = %format_args!("send {topic}"),
        otel.kind = "producer",
        messaging.operation.name = "publish",
        messaging.operation.type = "send",
        messaging.destination.name = topic,
        messaging.batch.message_count = count,
    );
    #[cfg(feature = "opentelemetry")]
    crate::trace_context::inject(&span, &mut messages);
    let published = within(&span, publish(messages)).await?;
    count!("pgqueue_published_messages_total", count as u64, "topic" => topic);
    time!("pgqueue_publish_seconds", watch.elapsed(), "topic" => topic);
    Ok(published)
}

/// Returns the span of what is done with a delivery, linked to those that published it. [`Worker`](crate::Worker)s run handlers
/// in it.
#[must_use]
pub fn process_span(delivery: &Delivery) -> Span {
    let message = delivery.message();
    let span = span!(
        INFO,
        "process",
        otel.name = %format_args!("process {}", message.topic()),
        otel.kind = "consumer",
        messaging.operation.name = "process",
        messaging.operation.type = "process",
        messaging.destination.name = message.topic(),
        messaging.destination.subscription.name = delivery.subscription(),
        messaging.message.id = %message.id(),
        messaging.batch.message_count = delivery.messages().len(),
        messaging.pgqueue.message.attempt = message.attempt(),
    );
    #[cfg(feature = "opentelemetry")]
    crate::trace_context::link(&span, delivery.messages());
    span
}

/// Looks for messages through `claim`, of whose outcome `found` says how many there are.
///
/// # Errors
/// Those of `claim`.
///
/// # Cancel safety
/// As `claim`.
pub async fn claiming<T>(
    subscription: &str,
    found: impl FnOnce(&T) -> usize + Send,
    claim: impl Future<Output = Result<T>> + Send,
) -> Result<T>
where
    T: Send + Sync,
{
    let watch = Stopwatch::start();
    let span = span!(
        DEBUG,
        "claim",
        otel.name = %format_args!("receive {subscription}"),
        otel.kind = "client",
        messaging.operation.name = "claim",
        messaging.operation.type = "receive",
        messaging.destination.subscription.name = subscription,
        messaging.batch.message_count = Empty,
    );
    let claimed = within(&span, claim).await;
    if let Ok(claimed) = &claimed {
        span.record("messaging.batch.message_count", found(claimed));
    }
    time!("pgqueue_claim_seconds", watch.elapsed(), "subscription" => subscription);
    claimed
}

/// Brings answers to the store through `settle`, those of one subscription.
///
/// # Errors
/// Those of `settle`.
///
/// # Cancel safety
/// As `settle`.
pub async fn settling<T: Send>(
    subscription: &str,
    answers: usize,
    settle: impl Future<Output = Result<T>> + Send,
) -> Result<T> {
    let watch = Stopwatch::start();
    let span = span!(
        DEBUG,
        "settle",
        otel.name = %format_args!("settle {subscription}"),
        otel.kind = "client",
        messaging.operation.name = "settle",
        messaging.operation.type = "settle",
        messaging.destination.subscription.name = subscription,
        answers,
    );
    let settled = within(&span, settle).await;
    time!("pgqueue_settle_call_seconds", watch.elapsed(), "subscription" => subscription);
    settled
}

/// Does something through `call` that is done from time to time.
///
/// # Errors
/// Those of `call`.
///
/// # Cancel safety
/// As `call`.
pub async fn chore<T: Send>(chore: &'static str, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
    let watch = Stopwatch::start();
    let span = span!(DEBUG, "chore", otel.name = chore, chore);
    let done = within(&span, call).await;
    time!("pgqueue_chore_seconds", watch.elapsed(), "chore" => chore);
    done
}

/// Notes that a message was given up for a subscription, and is a dead letter.
pub fn given_up(topic: &str, subscription: &str, message: &MessageId) {
    tracing::warn!(
        messaging.system = "pgqueue",
        messaging.destination.name = topic,
        messaging.destination.subscription.name = subscription,
        messaging.message.id = %message,
        "a message was given up"
    );
    count!("pgqueue_dead_letters_total", 1, "topic" => topic, "subscription" => subscription);
}

/// Notes that the connection that listens was lost and is back.
pub fn reconnected() {
    tracing::info!(messaging.system = "pgqueue", "the connection for notifications is back");
    count!("pgqueue_reconnects_total", 1);
}

/// Notes that consuming failed and will be tried again.
pub(crate) fn interrupted(error: &Error) {
    count!("pgqueue_interruptions_total", 1, "error" => format!("{:?}", error.kind()));
}

/// Notes that a delivery was handed out.
pub(crate) fn delivered(delivery: &Delivery) {
    let message = delivery.message();
    let (topic, subscription) = (message.topic(), delivery.subscription().unwrap_or_default());
    let messages = delivery.messages().len() as u64;
    tracing::trace!(
        messaging.system = "pgqueue",
        messaging.destination.name = topic,
        messaging.destination.subscription.name = delivery.subscription(),
        messaging.message.id = %message.id(),
        messaging.batch.message_count = messages,
        "a delivery was handed out"
    );
    count!("pgqueue_delivered_messages_total", messages, "topic" => topic, "subscription" => subscription);
    if message.attempt() > 1 {
        count!("pgqueue_redelivered_messages_total", messages, "topic" => topic, "subscription" => subscription);
    }
    time!(
        "pgqueue_delivery_lag_seconds",
        SystemTime::now().duration_since(message.published_at()).unwrap_or_default(),
        "topic" => topic,
        "subscription" => subscription
    );
}

/// Notes that a delivery was settled.
pub(crate) fn settled(messages: &[Message], subscription: Option<&str>, answer: &'static str, watch: Stopwatch) {
    let message = &messages[0];
    let count = messages.len() as u64;
    tracing::trace!(
        messaging.system = "pgqueue",
        messaging.destination.name = message.topic(),
        messaging.destination.subscription.name = subscription,
        messaging.message.id = %message.id(),
        messaging.batch.message_count = count,
        answer,
        "a delivery was settled"
    );
    let (topic, subscription) = (message.topic(), subscription.unwrap_or_default());
    count!(
        "pgqueue_settled_messages_total",
        count,
        "topic" => topic,
        "subscription" => subscription,
        "answer" => answer
    );
    time!("pgqueue_settle_seconds", watch.elapsed(), "topic" => topic, "subscription" => subscription);
}

/// Notes that a handler was run.
pub(crate) fn handled(held: &Held, watch: Stopwatch) {
    let (topic, subscription) = (held.messages()[0].topic(), held.subscription().unwrap_or_default());
    time!("pgqueue_handle_seconds", watch.elapsed(), "topic" => topic, "subscription" => subscription);
}

/// Notes that a delivery failed, in its span.
pub(crate) fn delivery_failed(held: &Held, error: &Error) {
    failed(&Span::current(), error);
    count!(
        "pgqueue_failures_total",
        1,
        "topic" => held.messages()[0].topic(),
        "subscription" => held.subscription().unwrap_or_default(),
        "error" => format!("{:?}", error.kind())
    );
}

/// Calls in a span, which says whether that failed.
async fn within<T>(span: &Span, call: impl Future<Output = Result<T>>) -> Result<T> {
    call.instrument(span.clone()).await.inspect_err(|error| failed(span, error))
}

fn failed(span: &Span, error: &Error) {
    span.record("otel.status_code", "error");
    span.record("error.type", tracing::field::debug(error.kind()));
}

#[cfg(feature = "metrics")]
impl SubscriptionStats {
    /// Sets the [gauges](crate::telemetry#metrics) of this subscription, through the `metrics` crate.
    ///
    /// Needs the feature `metrics`.
    pub fn record(&self) {
        let gauge =
            |name: &'static str, value: f64| metrics::gauge!(name, "subscription" => self.name.clone()).set(value);
        #[expect(clippy::cast_precision_loss, reason = "a gauge is no account")]
        let count = |name, count: u64| gauge(name, count as f64);
        count("pgqueue_waiting_messages", self.waiting);
        count("pgqueue_in_flight_messages", self.in_flight);
        count("pgqueue_retrying_messages", self.retrying);
        count("pgqueue_dead_messages", self.dead);
        count("pgqueue_held_back_messages", self.held_back);
        count("pgqueue_cut_messages", self.cut);
        count("pgqueue_consumers", self.consumers);
        gauge("pgqueue_oldest_message_seconds", self.oldest.unwrap_or_default().as_secs_f64());
    }
}
