//! What a consumer that goes in order by key asks of the server: a message waits for the one before it, and none for a look.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use pgqueue_core::{
    Backoff, ConsumeStream, Delivery, Error, NewMessage, Order, Publisher, SubscriptionDriver, Topic, bucket,
};
use pgqueue_postgres::{Client, ClientError, PgQueue};
use pgqueue_tests::END_LISTENERS;
use pgqueue_testserver::Database;
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

use crate::{
    between::{Meddle, meddled},
    both_clients::on_both_clients,
    common::{QUIET, consume, invoices, next, number, patiently, queue, queue_without_topic, quiet, take, until_sql},
    sleeping::{AT_ONCE, RARELY, asleep, rarely_looking},
};

on_both_clients!(
    looks_follow_runs_and_not_messages,
    other_keys_come_while_one_is_held_back,
    keys_of_one_bucket_wait_for_their_own_only,
    what_comes_back_takes_along_what_came_after_it_in_its_bucket,
    what_comes_back_of_several_keys_comes_in_the_order_of_each,
    keys_keep_their_order_whatever_comes_back,
    what_came_while_nobody_listened_comes_with_the_reconnection,
    what_follows_in_a_lane_goes_to_another_if_nobody_looks,
    what_follows_in_a_lane_goes_to_another_if_its_consumer_leaves,
    claim_on_its_way_does_not_hide_the_sleep_that_began_meanwhile,
);

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
    let queue = meddled::<C, _>(&database.url(), counted).await;
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

async fn at_once(stream: &mut ConsumeStream) -> Delivery {
    timeout(AT_ONCE, stream.next()).await.expect("it comes at once").unwrap().unwrap()
}

async fn what_came_while_nobody_listened_comes_with_the_reconnection<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let queue = rarely_looking(queue);
    let mut stream = consume(&queue, invoices().with_order(Order::ByKey).with_lease(RARELY)).await;
    queue.publish("orders", vec![of_key(0), of_key(0)]).await.unwrap();
    let _held = next(&mut stream).await; // the second waits for it
    asleep(&database, &mut stream).await;
    let other = (1..KEYS).find(|key| lane(*key) != lane(0)).unwrap();
    let publish = format!("{END_LISTENERS}; select count(pgqueue.publish('orders', 'x', '{}'))", name(other));
    assert_eq!(database.sql(&publish).await.unwrap(), "1\n1");
    at_once(&mut stream).await.ok().await.unwrap();
}

/// Two consumers of one lane with two messages: one has the first, and the other sleeps.
async fn one_at_work_and_one_asleep<C: Client>() -> (Database, ConsumeStream, Delivery, ConsumeStream) {
    let (database, queue) = queue::<C>().await;
    let queue = rarely_looking(queue);
    let subscription = invoices().with_order(Order::Total).with_lease(RARELY).with_prefetch(1);
    let mut stream = consume(&queue, subscription.clone()).await;
    queue.publish("orders", vec![of_key(0), of_key(1)]).await.unwrap();
    let first = next(&mut stream).await;
    let mut other = consume(&queue, subscription).await;
    asleep(&database, &mut other).await;
    (database, stream, first, other)
}

async fn what_follows_in_a_lane_goes_to_another_if_nobody_looks<C: Client>() {
    let (_database, _stream, first, mut other) = one_at_work_and_one_asleep::<C>().await;
    first.ok().await.unwrap(); // and then it does something else
    at_once(&mut other).await.ok().await.unwrap();
}

async fn what_follows_in_a_lane_goes_to_another_if_its_consumer_leaves<C: Client>() {
    let (_database, stream, first, mut other) = one_at_work_and_one_asleep::<C>().await;
    first.ok().await.unwrap();
    drop(stream);
    at_once(&mut other).await.ok().await.unwrap();
}

/// Holds the first claim's answer up until it is told.
#[derive(Default)]
struct Late {
    answers: Arc<Notify>,
    answered: Arc<watch::Sender<usize>>,
}

#[async_trait]
impl Meddle for Late {
    async fn after(&self, statement: &str) {
        if statement.contains("pgqueue.claim(") {
            if *self.answered.borrow() == 0 {
                self.answers.notified().await;
            }
            self.answered.send_modify(|answered| *answered += 1);
        }
    }
}

async fn claim_on_its_way_does_not_hide_the_sleep_that_began_meanwhile<C: Client>() {
    let (database, publisher) = queue::<C>().await;
    let late = Late::default();
    let (answers, mut answered) = (Arc::clone(&late.answers), late.answered.subscribe());
    let queue = rarely_looking(meddled::<C, _>(&database.url(), late).await);
    queue.insert_subscription(&invoices()).await.unwrap();
    let driver = queue.subscription(invoices());
    let mut wakeups = driver.listen().await.unwrap();
    assert!(timeout(QUIET, driver.fetch_pending()).await.is_err(), "its claim is on its way");
    let woken = tokio::spawn(async move { wakeups.next().await.unwrap().unwrap() });
    until_sql(&database, "select count(*) from pgqueue.sleeper", "1").await;
    answers.notify_one();
    patiently("the look before the sleep", answered.wait_for(|answered| *answered == 2)).await.unwrap();
    publisher.publish("orders", vec![of_key(0)]).await.unwrap();
    timeout(AT_ONCE, woken).await.expect("it wakes up at once").unwrap();
    let delivery = driver.fetch_pending().await.unwrap().unwrap();
    delivery.ok().await.unwrap();
}

/// Messages of two keys in one bucket, in turns.
async fn two_keys_of_one_bucket<C: Client>() -> (Database, PgQueue<C>) {
    let (database, queue) = queue_without_topic::<C>().await;
    queue.create_topic(Topic::new("orders").with_buckets(1)).await.unwrap();
    queue.insert_subscription(&invoices().with_order(Order::ByKey)).await.unwrap();
    queue.publish("orders", (0..6).map(|n| NewMessage::json(&n).unwrap().with_key(key(n))).collect()).await.unwrap();
    (database, queue)
}

fn key(number: u64) -> &'static str {
    if number.is_multiple_of(2) { "even" } else { "odd" }
}

async fn keys_of_one_bucket_wait_for_their_own_only<C: Client>() {
    let (_database, queue) = two_keys_of_one_bucket::<C>().await;
    let mut stream = consume(&queue, invoices().with_order(Order::ByKey)).await;
    let even = next(&mut stream).await;
    for wanted in [1, 3, 5] {
        let odd = next(&mut stream).await;
        assert_eq!((number(&even), number(&odd)), (0, wanted));
        quiet(&mut stream).await;
        odd.ok().await.unwrap();
    }
    quiet(&mut stream).await;
    even.ok().await.unwrap();
    for wanted in [2, 4] {
        let even = next(&mut stream).await;
        assert_eq!(number(&even), wanted);
        even.ok().await.unwrap();
    }
    assert_eq!(queue.stats("invoices").await.unwrap().in_flight, 0);
}

async fn what_comes_back_takes_along_what_came_after_it_in_its_bucket<C: Client>() {
    let (_database, queue) = two_keys_of_one_bucket::<C>().await;
    let mut stream = consume(&queue, invoices().with_order(Order::ByKey)).await;
    let [even, odd] = <[_; 2]>::try_from(take(&mut stream, 2).await).unwrap();
    odd.requeue().await.unwrap();
    quiet(&mut stream).await; // the bucket is this consumer's until all that is out of it is answered
    even.ok().await.unwrap();
    let mut came = Vec::new();
    for _ in 0..5 {
        let delivery = next(&mut stream).await;
        came.push((number(&delivery), delivery.message().attempt()));
        delivery.ok().await.unwrap();
    }
    assert_eq!(came, [(1, 2), (2, 1), (3, 1), (4, 1), (5, 1)]);
}

async fn what_comes_back_of_several_keys_comes_in_the_order_of_each<C: Client>() {
    let (_database, queue) = two_keys_of_one_bucket::<C>().await;
    let mut stream = consume(&queue, invoices().with_order(Order::ByKey)).await;
    let [first_even, first_odd] = <[_; 2]>::try_from(take(&mut stream, 2).await).unwrap();
    first_odd.ok().await.unwrap();
    let second_odd = next(&mut stream).await;
    assert_eq!(number(&second_odd), 3);
    first_even.requeue().await.unwrap(); // what goes back with it is before and behind the one that is out
    second_odd.requeue().await.unwrap();
    let mut came = Vec::new();
    for _ in 0..5 {
        let delivery = next(&mut stream).await;
        came.push(number(&delivery));
        delivery.ok().await.unwrap();
    }
    let of = |key: &str| came.iter().copied().filter(|n| self::key(*n) == key).collect::<Vec<_>>();
    assert_eq!((of("even"), of("odd")), (vec![0, 2, 4], vec![3, 5]));
}

/// How many messages come back at random, of how many keys, and how many are out at the same time.
const RANDOM: u64 = 200;
const RANDOM_KEYS: u64 = 6;
const OUT: usize = 8;

async fn keys_keep_their_order_whatever_comes_back<C: Client>() {
    let seed = fastrand::u64(..);
    let random = std::sync::Mutex::new(fastrand::Rng::with_seed(seed));
    let (_database, queue) = queue_without_topic::<C>().await;
    queue.create_topic(Topic::new("orders").with_buckets(2)).await.unwrap();
    let backoff = Backoff::fixed(Duration::from_millis(5)).with_max_attempts(1000);
    let subscription = invoices().with_order(Order::ByKey).with_prefetch(20).with_backoff(backoff);
    queue.insert_subscription(&subscription).await.unwrap();
    let key = |n: u64| format!("customer {}", n % RANDOM_KEYS);
    queue
        .publish("orders", (0..RANDOM).map(|n| NewMessage::json(&n).unwrap().with_key(key(n))).collect())
        .await
        .unwrap();
    let stream = consume(&queue, subscription).await;
    let done = watch::Sender::new(Vec::new());
    let mut dones = done.subscribe();
    let all = async { dones.wait_for(|done| done.len() as u64 == RANDOM).await.is_ok() };
    let handled = stream.take_until(all).try_for_each_concurrent(OUT, async |delivery| {
        let (comes_back, pause) = {
            let mut random = random.lock().unwrap();
            (random.u8(..3) == 0, Duration::from_millis(random.u64(..5)))
        };
        tokio::time::sleep(pause).await; // the work
        if comes_back {
            return delivery.requeue().await;
        }
        done.send_modify(|done| done.push(number(&delivery)));
        delivery.ok().await
    });
    patiently("all", handled).await.unwrap();
    let done = done.borrow();
    for of in 0..RANDOM_KEYS {
        let done: Vec<u64> = done.iter().copied().filter(|n| n % RANDOM_KEYS == of).collect();
        let in_order: Vec<u64> = (0..RANDOM).filter(|n| n % RANDOM_KEYS == of).collect();
        assert_eq!(done, in_order, "seed {seed}");
    }
}
