//! What one client publishes the other consumes, and so does what comes from SQL.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::TryStreamExt;
use pgqueue_core::{
    Ack, Backoff, NewMessage, Order, Publisher, PublisherExt, Subscription, SubscriptionDriver, Topic, subscribe,
};
use pgqueue_postgres::{Client, Options, PgQueue};
use pgqueue_sqlx::Sqlx;
use pgqueue_tokio_postgres::TokioPostgres;
use tokio::{sync::Notify, task::JoinSet};

use crate::{
    backend::Backend,
    both_clients::on_both_clients,
    common::{consume, invoices, next, number, patiently, publish_number, queue, quiet, until_sql},
};

on_both_clients!(
    what_sql_publishes_is_consumed,
    what_is_rolled_back_to_a_savepoint_is_never_published,
    what_a_transaction_publishes_comes_when_it_commits,
);

const KEYS: usize = 8;
const PER_KEY: usize = 40;

/// What is acknowledged, by key.
#[derive(Default)]
struct Audit {
    acknowledged: Mutex<HashMap<usize, usize>>,
    redelivered: Mutex<usize>,
    all: Notify,
}

impl Audit {
    /// Checks that nothing came before its time, and nothing after it.
    fn delivered(&self, key: usize, number: usize) {
        let expected = self.acknowledged.lock().unwrap().get(&key).copied().unwrap_or(0);
        assert_eq!(number, expected, "of key {key}");
    }

    fn requeued(&self) {
        *self.redelivered.lock().unwrap() += 1;
    }

    /// Notes an answer that is about to be given: the next may come before it is known to have arrived.
    fn acknowledged(&self, key: usize, number: usize) {
        let mut acknowledged = self.acknowledged.lock().unwrap();
        acknowledged.insert(key, number + 1);
        if acknowledged.len() == KEYS && acknowledged.values().all(|count| *count == PER_KEY) {
            self.all.notify_one();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_stay_in_order_across_both_clients() {
    let (database, tokio_postgres) = queue::<TokioPostgres>().await;
    let sqlx = PgQueue::<Sqlx>::connect(&database.url()).await.unwrap();
    let subscription = invoices().with_order(Order::ByKey).with_prefetch(7);
    sqlx.insert_subscription(&subscription).await.unwrap();

    let audit = Arc::new(Audit::default());
    let mut consumers = JoinSet::new();
    for _ in 0..2 {
        consumers.spawn(handle(tokio_postgres.subscription(subscription.clone()), Arc::clone(&audit)));
        let other = PgQueue::<Sqlx>::connect(&database.url()).await.unwrap();
        consumers.spawn(handle(other.subscription(subscription.clone()), Arc::clone(&audit)));
    }
    let mut publishers = JoinSet::new();
    for key in 0..KEYS {
        let (tokio_postgres, sqlx) = (tokio_postgres.clone(), sqlx.clone());
        publishers.spawn(async move {
            for number in 0..PER_KEY {
                let message = NewMessage::json(&(key, number)).unwrap().with_key(format!("customer {key}"));
                match (key + number) % 2 {
                    0 => tokio_postgres.publish_one("orders", message).await.unwrap(),
                    _ => sqlx.publish_one("orders", message).await.unwrap(),
                };
            }
        });
    }
    patiently("all publishers", publishers.join_all()).await;
    tokio::select! {
        () = patiently("all acknowledgements", audit.all.notified()) => {}
        ended = consumers.join_next() => panic!("a consumer ended: {ended:?}"),
    }
    until_sql(&database, "select count(*) from pgqueue.lease", "0").await;
    let redelivered = *audit.redelivered.lock().unwrap();
    assert_eq!(redelivered, KEYS * PER_KEY.div_ceil(7));
    assert_eq!(database.sql("select count(*), count(distinct id) from pgqueue.dead_letter").await.unwrap(), "0\t0");
}

async fn handle(driver: impl SubscriptionDriver, audit: Arc<Audit>) {
    let stream = subscribe(driver).await.unwrap();
    let consumed = stream.try_for_each_concurrent(5, |delivery| {
        let audit = &audit;
        async move {
            let (key, number): (usize, usize) = delivery.message().json()?;
            audit.delivered(key, number);
            if number % 7 == 0 && delivery.message().attempt() == 1 {
                audit.requeued();
                delivery.settle(Ack::requeue_after(Duration::from_millis(5))).await
            } else {
                audit.acknowledged(key, number);
                delivery.ok().await
            }
        }
    });
    consumed.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_of_a_message_crosses_from_client_to_client() {
    async fn crosses<P: Client, C: Client>(publisher: &PgQueue<P>, consumer: &PgQueue<C>) {
        let mut stream = consume(consumer, invoices()).await;
        let message = NewMessage::new(vec![0, 255, b'{'])
            .with_key("kéy")
            .with_kind("order.paid")
            .with_tag("a,b")
            .with_tag("\"c\"")
            .with_header("name", "\"välue\"")
            .with_header("empty", "");
        let id = publisher.publish_one("orders", message.clone()).await.unwrap();
        let delivery = next(&mut stream).await;
        let received = delivery.message();
        assert_eq!((received.id(), received.topic(), received.attempt()), (&id, "orders", 1));
        assert_eq!((received.key(), received.kind()), (message.key(), message.kind()));
        assert_eq!((received.tags(), received.headers()), (message.tags(), message.headers()));
        assert_eq!(received.payload(), message.payload());
        delivery.ok().await.unwrap();
    }
    let (database, tokio_postgres) = queue::<TokioPostgres>().await;
    let sqlx = PgQueue::<Sqlx>::connect(&database.url()).await.unwrap();
    crosses(&tokio_postgres, &sqlx).await;
    crosses(&sqlx, &tokio_postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_clients_see_the_same_options() {
    let (database, tokio_postgres) = queue::<TokioPostgres>().await;
    let sqlx = PgQueue::<Sqlx>::connect(&database.url()).await.unwrap();
    let backoff = Backoff::default()
        .with_max_attempts(u32::MAX)
        .with_base(Duration::from_micros(1500))
        .with_multiplier(1.7)
        .with_cap(Duration::from_secs(86_400))
        .with_jitter(0.25);
    let subscription = Subscription::new("invoices", "orders")
        .with_order(Order::ByKey)
        .with_batch(3)
        .with_prefetch(17)
        .with_lease(Duration::from_millis(4321))
        .with_backoff(backoff);
    tokio_postgres.insert_subscription(&subscription).await.unwrap();
    assert_eq!(sqlx.subscriptions().await.unwrap(), std::slice::from_ref(&subscription));
    let changed = subscription.with_prefetch(18).with_lease(Duration::from_secs(60));
    sqlx.alter_subscription(&changed).await.unwrap();
    assert_eq!(tokio_postgres.subscriptions().await.unwrap(), [changed]);
    let topic = Topic::new("returns").with_buckets(u16::MAX).with_dedup_window(Duration::from_millis(1234));
    sqlx.create_topic(topic.clone()).await.unwrap();
    assert_eq!(tokio_postgres.topic("returns").await.unwrap(), topic);
}

async fn what_sql_publishes_is_consumed<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let mut stream = consume(&queue, invoices()).await;
    let id = database.sql("select pgqueue.publish('orders', '{\"id\": 1}')").await.unwrap();
    let delivery = next(&mut stream).await;
    let message = delivery.message();
    assert_eq!((message.id().to_string(), &message.payload()[..]), (id, &b"{\"id\": 1}"[..]));
    assert_eq!((message.key(), message.kind(), message.tags().len(), message.headers().len()), (None, None, 0, 0));
    delivery.ok().await.unwrap();

    let all = "select pgqueue.publish('orders', 'ü', v_key => 'k', v_kind => 'order.paid', v_tags => '{a,\"b,c\"}', \
               v_headers => '{\"h\": \"v\"}', v_dedup_id => 'once')";
    let id = database.sql(all).await.unwrap();
    assert_eq!(database.sql(all).await.unwrap(), id);
    assert_eq!(queue.publish_one("orders", NewMessage::new("").with_dedup_id("once")).await.unwrap().to_string(), id);
    let delivery = next(&mut stream).await;
    let message = delivery.message();
    assert_eq!((message.key(), message.kind(), message.payload()), (Some("k"), Some("order.paid"), &"ü".into()));
    assert_eq!((message.tags(), &*message.headers()["h"]), (&["a".to_owned(), "b,c".to_owned()][..], "v"));
    delivery.ok().await.unwrap();

    // Keys from SQL share the lanes of keys from here.
    let bucket = "select bucket from pgqueue.log order by id desc limit 1";
    for key in ["", "customer 7", "ключ 🗝"] {
        database.sql(&format!("select pgqueue.publish('orders', '1', v_key => '{key}')")).await.unwrap();
        assert_eq!(database.sql(bucket).await.unwrap(), pgqueue_core::bucket(key, 16).to_string(), "of {key:?}");
        next(&mut stream).await.ok().await.unwrap();
    }

    let due = "select pgqueue.publish('orders', 'later', v_due_at => clock_timestamp() + interval '300 milliseconds')";
    let id = database.sql(due).await.unwrap();
    let delivery = next(&mut stream).await;
    assert_eq!((delivery.message().id().to_string(), &delivery.message().payload()[..]), (id, &b"later"[..]));
    delivery.ok().await.unwrap();
    assert!(
        database
            .sql("select pgqueue.publish('nowhere', '')")
            .await
            .unwrap_err()
            .to_string()
            .contains("'nowhere' does not exist")
    );
}

async fn what_is_rolled_back_to_a_savepoint_is_never_published<C: Backend>() {
    let (database, queue) = queue::<C>().await;
    let mut stream = consume(&queue, invoices()).await;
    let mut transaction = C::open(&database.url()).await;
    let one = |n: u64| vec![NewMessage::json(&n).unwrap().with_dedup_id(n.to_string())];
    queue.publish_in(&mut transaction, "orders", one(1)).await.unwrap();
    C::execute(&mut transaction, "savepoint a").await;
    let rolled_back = queue.publish_in(&mut transaction, "orders", one(2)).await.unwrap();
    C::execute(&mut transaction, "rollback to savepoint a; savepoint b").await;
    queue.publish_in(&mut transaction, "orders", one(3)).await.unwrap();
    C::execute(&mut transaction, "release savepoint b").await;
    quiet(&mut stream).await;
    // Meanwhile another's goes by.
    publish_number(&queue, 4).await;
    let other = next(&mut stream).await;
    assert_eq!(number(&other), 4);
    other.ok().await.unwrap();
    C::commit(transaction).await;
    for expected in [1, 3] {
        let delivery = next(&mut stream).await;
        assert_eq!(number(&delivery), expected);
        delivery.ok().await.unwrap();
    }
    quiet(&mut stream).await;
    assert_ne!(queue.publish("orders", one(2)).await.unwrap(), rolled_back, "its id is free again");
    assert_eq!(number(&next(&mut stream).await), 2);
}

async fn what_a_transaction_publishes_comes_when_it_commits<C: Backend>() {
    let (database, queue) = queue::<C>().await;
    let subscription = Subscription::new("invoices", "orders").with_order(Order::ByKey);
    // Found by ringing and by looking alike.
    let deaf = Options::new().with_ringing(false).with_poll_interval(Duration::from_millis(100));
    for queue in [queue.clone(), queue.with_options(deaf).unwrap()] {
        let mut stream = consume(&queue, subscription.clone()).await;
        for round in 0..3_u64 {
            let mut early = C::open(&database.url()).await;
            let mut late = C::open(&database.url()).await;
            let keyed = |n: u64| vec![NewMessage::json(&n).unwrap().with_key("k")];
            queue.publish_in(&mut early, "orders", keyed(3 * round)).await.unwrap();
            queue.publish_in(&mut late, "orders", keyed(3 * round + 1)).await.unwrap();
            C::commit(late).await;
            let delivery = next(&mut stream).await;
            assert_eq!(number(&delivery), 3 * round + 1);
            delivery.ok().await.unwrap();
            C::commit(early).await;
            let delivery = next(&mut stream).await;
            assert_eq!(number(&delivery), 3 * round);
            delivery.ok().await.unwrap();
        }
        quiet(&mut stream).await;
    }
}
