//! What the tests share: a queue in a database of its own, and named patience.

use std::{error::Error as StdError, fmt::Write, time::Duration};

use futures::StreamExt;
use pgqueue_core::{
    Backoff, ConsumeStream, Delivery, Error, ErrorKind, MessageId, NewMessage, Publisher, PublisherExt, Result,
    RetryConfig, Subscription, Topic, subscribe,
};
use pgqueue_postgres::{Client, PgQueue};
use pgqueue_tests::migrated;
pub(crate) use pgqueue_tests::until_sql;
use pgqueue_testserver::Database;
use tokio::time::timeout;

/// How long anything may take that has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// For how long nothing may happen where nothing is to happen.
pub(crate) const QUIET: Duration = Duration::from_millis(700);

/// A lease that ends soon.
pub(crate) const SHORT_LEASE: Duration = Duration::from_secs(1);

/// A queue with its schema and the topic "orders".
pub(crate) async fn queue<C: Client>() -> (Database, PgQueue<C>) {
    let (database, queue) = queue_without_topic().await;
    queue.create_topic(Topic::new("orders")).await.unwrap();
    (database, queue)
}

pub(crate) async fn queue_without_topic<C: Client>() -> (Database, PgQueue<C>) {
    let database = migrated::<C>().await.unwrap();
    let queue = PgQueue::connect(&database.url()).await.unwrap();
    (database, queue)
}

/// A subscription of "orders" whose requeued messages come again at once.
pub(crate) fn invoices() -> Subscription {
    Subscription::new("invoices", "orders").with_backoff(Backoff::fixed(Duration::ZERO))
}

/// Consumes; nothing that fails is tried again.
pub(crate) async fn consume<C: Client>(queue: &PgQueue<C>, subscription: Subscription) -> ConsumeStream {
    try_consume(queue, subscription).await.unwrap()
}

pub(crate) async fn try_consume<C: Client>(queue: &PgQueue<C>, subscription: Subscription) -> Result<ConsumeStream> {
    let stream = patiently("a stream", subscribe(queue.subscription(subscription))).await?;
    Ok(stream.with_retry(RetryConfig::never()))
}

/// Publishes numbers, in order and at once.
pub(crate) async fn publish_numbers<C: Client>(
    queue: &PgQueue<C>,
    numbers: impl IntoIterator<Item = u64>,
) -> Vec<MessageId> {
    let messages = numbers.into_iter().map(|number| NewMessage::json(&number).unwrap()).collect();
    queue.publish("orders", messages).await.unwrap()
}

pub(crate) async fn publish_number<C: Client>(queue: &PgQueue<C>, number: u64) -> MessageId {
    queue.publish_json("orders", &number).await.unwrap()
}

pub(crate) fn number(delivery: &Delivery) -> u64 {
    delivery.message().json().unwrap()
}

/// Awaits what has to come.
pub(crate) async fn patiently<F: Future>(what: &str, future: F) -> F::Output {
    let result = timeout(PATIENCE, future).await;
    result.unwrap_or_else(|_| panic!("waited {PATIENCE:?} in vain for {what}"))
}

/// The next delivery.
pub(crate) async fn next(stream: &mut ConsumeStream) -> Delivery {
    patiently("a delivery", stream.next()).await.expect("a stream that goes on").unwrap()
}

/// The next so many deliveries.
pub(crate) async fn take(stream: &mut ConsumeStream, count: usize) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    while deliveries.len() < count {
        deliveries.push(next(stream).await);
    }
    deliveries
}

/// The error that a stream ends with.
pub(crate) async fn end(stream: &mut ConsumeStream) -> Error {
    let end = patiently("the end of a stream", stream.next()).await.expect("an error at the end");
    end.expect_err("an error and no delivery")
}

/// Checks that nothing is delivered for a while.
pub(crate) async fn quiet(stream: &mut ConsumeStream) {
    if let Ok(item) = timeout(QUIET, stream.next()).await {
        panic!("nothing should be delivered, but there is {item:?}");
    }
}

/// Checks what an error says, all of its sources included: it is of this kind, names these, and tells no secret.
pub(crate) fn assert_says(error: &Error, kind: ErrorKind, words: &[&str]) {
    let said = error.to_string();
    assert_eq!(error.kind(), kind, "{}", chain(error));
    for word in words {
        assert!(said.contains(word), "{said:?} does not say {word:?}");
    }
}

/// Everything that an error tells, down to its last source.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut told = format!("{error} | {error:?}");
    let mut source = error.source();
    while let Some(error) = source {
        write!(told, "\n{error} | {error:?}").unwrap();
        source = error.source();
    }
    told
}

/// A claim of somebody who consumes in SQL, which says how many messages it took.
pub(crate) fn claim_of(somebody: &str, most: u64) -> String {
    format!("select count(id) from pgqueue.claim(1, '{somebody}', '{somebody}', {most}, true, true, 0, false)")
}
