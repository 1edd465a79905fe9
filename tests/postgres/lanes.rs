//! What a consumer that goes in order by key asks of the server: a message waits for the one before it, and none for a look.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use pgqueue_core::{Error, NewMessage, Order, Publisher, bucket};
use pgqueue_postgres::{Client, ClientError, PgQueue};

use crate::{
    between::{Between, Meddle},
    both_clients::on_both_clients,
    common::{consume, invoices, next, patiently, queue},
};

on_both_clients!(looks_follow_runs_and_not_messages, other_keys_come_while_one_is_held_back);

const MESSAGES: usize = 600;
const KEYS: usize = 100;

/// How many a topic has if nobody says otherwise.
const BUCKETS: u16 = 16;

/// Counts the claims that were sent.
#[derive(Default)]
struct Counted(Arc<AtomicUsize>);

#[async_trait]
impl Meddle for Counted {
    async fn before<C: Client>(&self, _client: &C, statement: &str) -> Result<(), ClientError> {
        self.0.fetch_add(usize::from(statement.contains("pgqueue.claim(")), Ordering::Relaxed);
        Ok(())
    }
}

fn name(key: usize) -> String {
    format!("customer-{key}")
}

fn of_key(key: usize) -> NewMessage {
    NewMessage::new("").with_key(name(key))
}

fn lane(key: usize) -> u16 {
    bucket(&name(key), BUCKETS)
}

async fn looks_follow_runs_and_not_messages<C: Client>() {
    let (database, publisher) = queue::<C>().await;
    let counted = Counted::default();
    let claims = Arc::clone(&counted.0);
    let queue = PgQueue::<Between<C, Counted>>::new(Between::new(C::connect(&database.url()).await.unwrap(), counted));
    let subscription = invoices().with_order(Order::ByKey);
    queue.insert_subscription(&subscription).await.unwrap();
    publisher.publish("orders", (0..MESSAGES).map(|n| of_key(n % KEYS)).collect()).await.unwrap();

    let stream = consume(&queue, subscription).await.take(MESSAGES);
    let handling = stream.try_for_each_concurrent(KEYS, async |delivery| delivery.ok().await);
    patiently("all messages", handling).await.map_err(|error: Error| error.to_string()).unwrap();
    let claims = claims.load(Ordering::Relaxed);
    assert!(claims < MESSAGES / 6, "{claims} claims");
}

async fn other_keys_come_while_one_is_held_back<C: Client>() {
    let (_database, queue) = queue::<C>().await;
    let mut stream = consume(&queue, invoices().with_order(Order::ByKey)).await;
    queue.publish("orders", vec![of_key(0), of_key(0)]).await.unwrap();
    let held = next(&mut stream).await;
    // Each comes while the second of the first key is in hand and waits.
    for key in (1..KEYS).filter(|key| lane(*key) != lane(0)) {
        queue.publish("orders", vec![of_key(key)]).await.unwrap();
        next(&mut stream).await.ok().await.unwrap();
    }
    held.ok().await.unwrap();
    next(&mut stream).await.ok().await.unwrap();
}
