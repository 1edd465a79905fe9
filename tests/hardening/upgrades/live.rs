//! Migrations under traffic: whoever publishes and consumes goes on, by a binary that knows the older schema only.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use futures::StreamExt;
use pgqueue_core::{Error, ErrorKind, NewMessage, Order, Publisher, Subscription, subscribe};
use pgqueue_postgres::{Client, Options, PgQueue};
use pgqueue_sqlx::Sqlx;
use pgqueue_tokio_postgres::TokioPostgres;
use tokio::{task::JoinSet, time::Instant};

use super::{FURTHER, FURTHEST};
use crate::{
    backend::Backend,
    both_clients::on_both_clients,
    catalog,
    common::{PATIENCE, consume, invoices, next, patiently, publish_number, queue, queue_without_topic},
};

on_both_clients!(
    traffic_goes_on_while_the_schema_grows,
    an_older_binary_works_on_a_newer_schema,
    several_migrate_at_once,
);

/// How many messages each publisher gets through before the next migration, at least.
const BETWEEN: u64 = 20;

/// What publishers and consumers have done.
#[derive(Default)]
struct Traffic {
    stopped: AtomicBool,
    published: AtomicU64,
    consumed: AtomicU64,
    /// Statements that were refused and sent again: a migration may win a deadlock.
    refused: AtomicU64,
}

impl Traffic {
    async fn goes_on(&self) {
        let goal = self.consumed.load(SeqCst) + BETWEEN;
        self.reaches(goal).await;
    }

    async fn reaches(&self, goal: u64) {
        let since = Instant::now();
        while self.consumed.load(SeqCst) < goal {
            assert!(since.elapsed() < PATIENCE, "{} of {goal} came", self.consumed.load(SeqCst));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Publishes under a key, one number after the other. Returns how many.
    async fn publish<C: Backend>(
        self: Arc<Self>,
        queue: PgQueue<C>,
        url: String,
        key: String,
        in_transactions: bool,
    ) -> u64 {
        let mut number = 0;
        while !self.stopped.load(SeqCst) {
            let message = NewMessage::json(&number).unwrap().with_key(&*key).with_dedup_id(format!("{key} {number}"));
            let published = if in_transactions {
                let mut transaction = C::open(&url).await;
                let published = queue.publish_in(&mut transaction, "orders", vec![message]).await;
                match published {
                    Ok(_) => C::commit(transaction).await,
                    Err(_) => C::rollback(transaction).await,
                }
                published
            } else {
                queue.publish("orders", vec![message]).await
            };
            match published {
                Ok(_) => {
                    number += 1;
                    self.published.fetch_add(1, SeqCst);
                }
                Err(error) => self.refusal(&error),
            }
        }
        number
    }

    /// A deadlock with a migration is known not to have taken effect, and says so.
    fn refusal(&self, error: &Error) {
        assert!(error.kind() == ErrorKind::Query && error.is_transient(), "{error:?}");
        self.refused.fetch_add(1, SeqCst);
    }

    /// Consumes until it is dropped. What comes may be a repetition, and never misses its predecessor.
    async fn consume<C: Client>(self: Arc<Self>, queue: PgQueue<C>, subscription: Subscription) {
        let mut stream = subscribe(queue.subscription(subscription)).await.unwrap();
        let mut seen: HashMap<String, u64> = HashMap::new();
        while let Some(delivery) = stream.next().await {
            let delivery = delivery.unwrap();
            let number: u64 = delivery.message().json().unwrap();
            let expected = seen.entry(delivery.message().key().unwrap().to_owned()).or_default();
            assert!(number <= *expected, "{number} came before {expected}");
            let is_new = number == *expected;
            *expected += u64::from(is_new);
            match delivery.ok().await {
                Ok(()) => self.consumed.fetch_add(u64::from(is_new), SeqCst),
                Err(error) => panic!("{error:?}"),
            };
        }
    }
}

async fn traffic_goes_on_while_the_schema_grows<C: Backend>() {
    let (database, queue) = queue::<C>().await;
    let traffic = Arc::new(Traffic::default());
    let (mut publishers, mut consumers) = (JoinSet::new(), JoinSet::new());
    let orders = [Order::ByKey, Order::Total, Order::StableTotal];
    for order in orders {
        // One a subscription, so that what it has seen is all that there is.
        let subscription = Subscription::new(order.to_string(), "orders").with_order(order);
        queue.insert_subscription(&subscription).await.unwrap();
        let queue = PgQueue::<C>::connect(&database.url()).await.unwrap();
        consumers.spawn(Arc::clone(&traffic).consume(queue, subscription));
    }
    for (key, coalescing, in_transactions) in [("alone", false, false), ("together", true, false), ("in", false, true)]
    {
        let options = Options::new().with_coalescing(coalescing);
        let queue = PgQueue::<C>::connect(&database.url()).await.unwrap().with_options(options).unwrap();
        publishers.spawn(Arc::clone(&traffic).publish(queue, database.url(), key.to_owned(), in_transactions));
    }
    traffic.goes_on().await;
    for version in 1..=FURTHER.len() {
        // Whoever migrates is told where it lost against traffic, and does it again.
        let since = Instant::now();
        while let Err(error) = queue.migrate_further(&FURTHER[..version]).await {
            traffic.refusal(&error);
            assert!(since.elapsed() < PATIENCE, "{error:?}");
        }
        traffic.goes_on().await;
    }
    traffic.stopped.store(true, SeqCst);
    let published: u64 = patiently("the publishers", publishers.join_all()).await.into_iter().sum();
    assert_eq!(traffic.published.load(SeqCst), published);
    traffic.reaches(published * orders.len() as u64).await;
    assert!(consumers.try_join_next().is_none(), "all consumers live");
    let count = "select count(*) from pgqueue.dedup";
    assert_eq!(database.sql(count).await.unwrap(), published.to_string());
    assert_eq!(database.sql("select max(version) from pgqueue.migration").await.unwrap(), FURTHEST);
}

async fn an_older_binary_works_on_a_newer_schema<C: Client>() {
    let (database, queue) = queue::<C>().await;
    queue.migrate_further(&FURTHER).await.unwrap();
    let older = PgQueue::<C>::connect(&database.url()).await.unwrap();
    older.migrate().await.unwrap();
    let mut stream = consume(&older, invoices().with_order(Order::ByKey)).await;
    publish_number(&older, 1).await;
    next(&mut stream).await.requeue().await.unwrap();
    next(&mut stream).await.settle(pgqueue_core::Ack::reject("no")).await.unwrap();
    assert_eq!(older.redrive("invoices").await.unwrap(), 1);
    next(&mut stream).await.ok().await.unwrap();
    older.maintain().await.unwrap();
    assert_eq!(database.sql("select max(version) from pgqueue.migration").await.unwrap(), FURTHEST);
}

async fn several_migrate_at_once<C: Client>() {
    async fn migrate<C: Client>(url: String) {
        PgQueue::<C>::connect(&url).await.unwrap().migrate_further(&FURTHER).await.unwrap();
    }
    let (alone, queue) = queue_without_topic::<C>().await;
    queue.migrate_further(&FURTHER).await.unwrap();
    let (database, _) = queue_without_topic::<C>().await;
    let mut all = JoinSet::new();
    for _ in 0..3 {
        all.spawn(migrate::<TokioPostgres>(database.url()));
        all.spawn(migrate::<Sqlx>(database.url()));
    }
    patiently("all migrations", all.join_all()).await;
    let versions = "select string_agg(version::text, ' ' order by version) from pgqueue.migration";
    assert_eq!(database.sql(versions).await.unwrap(), "1 2 3 4");
    assert_eq!(database.sql("select count(*) from pgqueue.note").await.unwrap(), "1", "each was done once");
    catalog::assert_same("as if one had", &catalog::schema(&alone).await, &catalog::schema(&database).await);
}
