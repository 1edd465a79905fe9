//! What becomes of subscriptions that fall behind what their topic retains.

use std::{ops::Range, time::Duration};

use futures::StreamExt;
use pgqueue_core::{
    ErrorKind, Laggards, NewMessage, Order, Publisher, Retention, Selector, Start, Subscription, Topic,
};
use pgqueue_postgres::{Client, PgQueue};
use pgqueue_testserver::Database;

use crate::{
    backend::Backend,
    both_clients::on_both_clients,
    common::{
        SHORT_LEASE, assert_says, consume, end, invoices, next, number, patiently, publish_numbers, queue, quiet, take,
    },
};

on_both_clients!(
    laggard_is_cut_and_told_in_every_order,
    laggard_that_was_moved_goes_on,
    laggard_holds_the_log_no_longer,
    laggard_by_age_is_cut,
    beginning_is_behind_what_would_be_cut_at_once,
    what_keeps_up_is_not_cut,
    what_is_in_hand_is_not_cut,
    laggard_that_loses_nothing_it_selects_is_not_cut,
    what_came_late_is_cut_once_it_is_given_up,
    late_giant_is_cut_page_by_page,
    cutting_comes_back_as_it_was_set,
);

const ORDERS: [Order; 4] = [Order::Unordered, Order::ByKey, Order::Total, Order::StableTotal];

fn latest(messages: u64) -> Topic {
    let retention = Retention::everything().with_max_messages(messages).with_laggards(Laggards::Cut);
    Topic::new("orders").with_retention(retention)
}

/// Each with a key of its own, in a transaction of its own.
async fn publish_keyed<C: Client>(queue: &PgQueue<C>, numbers: Range<u64>) {
    for number in numbers {
        let message = NewMessage::json(&number).unwrap().with_key(number.to_string());
        queue.publish("orders", vec![message]).await.unwrap();
    }
}

/// One round counts, the next cuts, and the one after that deletes.
async fn keep_house<C: Client>(queue: &PgQueue<C>) {
    for _ in 0..3 {
        queue.maintain().await.unwrap();
    }
}

/// In stable total order, transactions elsewhere on the server are waited for.
async fn keep_house_until<C: Client, Fut: Future<Output = bool> + Send>(
    queue: &PgQueue<C>,
    is_done: impl Fn() -> Fut + Send + Sync,
) {
    patiently("the housekeeping", async {
        while !is_done().await {
            queue.maintain().await.unwrap();
        }
    })
    .await;
}

async fn in_log(database: &Database) -> u64 {
    database.sql("select count(*) from pgqueue.log").await.unwrap().parse().unwrap()
}

async fn cut<C: Client>(queue: &PgQueue<C>, name: &str) -> u64 {
    queue.stats(name).await.unwrap().cut
}

async fn laggard_is_cut_and_told_in_every_order<C: Client>() {
    for order in ORDERS {
        let (_database, queue) = queue::<C>().await;
        queue.create_topic(latest(5)).await.unwrap();
        queue.insert_subscription(&invoices().with_order(order)).await.unwrap();
        publish_keyed(&queue, 0..20).await;
        assert_eq!(cut(&queue, "invoices").await, 0, "{order}");
        keep_house_until(&queue, || async { cut(&queue, "invoices").await == 15 }).await;

        let mut stream = consume(&queue, invoices().with_order(order)).await;
        let error = loop {
            // Of by-key lanes, those that lost nothing go on until the others are looked at.
            match patiently("the error", stream.next()).await.unwrap() {
                Ok(delivery) => assert!(number(&delivery) >= 15, "{order}"),
                Err(error) => break error,
            }
        };
        assert_says(&error, ErrorKind::Truncated, &["\"invoices\" lagged behind", "seek"]);
    }
}

async fn laggard_that_was_moved_goes_on<C: Client>() {
    let (_database, queue) = queue::<C>().await;
    queue.create_topic(latest(5)).await.unwrap();
    queue.insert_subscription(&invoices().with_order(Order::Total)).await.unwrap();
    publish_numbers(&queue, 0..20).await;
    keep_house(&queue).await;
    let mut stream = consume(&queue, invoices().with_order(Order::Total)).await;
    end(&mut stream).await;
    drop(stream);
    patiently("the consumer's leave", queue.consumers_gone()).await;

    queue.seek("invoices", &Start::Beginning).await.unwrap();
    assert_eq!(cut(&queue, "invoices").await, 0);
    let mut stream = consume(&queue, invoices().with_order(Order::Total)).await;
    for expected in 15..20 {
        let delivery = next(&mut stream).await;
        assert_eq!(number(&delivery), expected);
        delivery.ok().await.unwrap();
    }
    quiet(&mut stream).await;
}

async fn laggard_holds_the_log_no_longer<C: Client>() {
    for order in ORDERS {
        let (database, queue) = queue::<C>().await;
        queue.create_topic(latest(5)).await.unwrap();
        queue.insert_subscription(&invoices().with_order(order)).await.unwrap();
        publish_keyed(&queue, 0..20).await;
        // In stable total order the last transaction that was cut may stay until the next is passed.
        let left = if order == Order::StableTotal { 5..=6 } else { 5..=5 };
        keep_house_until(&queue, || async { left.contains(&in_log(&database).await) }).await;
    }
}

async fn laggard_by_age_is_cut<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let hour = Retention::everything().with_max_age(Duration::from_secs(3600));
    queue.create_topic(Topic::new("orders").with_retention(hour.with_laggards(Laggards::Cut))).await.unwrap();
    queue.insert_subscription(&invoices()).await.unwrap();
    publish_numbers(&queue, 0..3).await;
    keep_house(&queue).await;
    assert_eq!(cut(&queue, "invoices").await, 0);
    database.sql("update pgqueue.log set published_at = published_at - interval '1 hour'").await.unwrap();
    publish_numbers(&queue, 3..5).await;
    keep_house(&queue).await;
    assert_eq!(cut(&queue, "invoices").await, 3);
    assert_eq!(in_log(&database).await, 2);
}

async fn beginning_is_behind_what_would_be_cut_at_once<C: Client>() {
    for order in [Order::Total, Order::StableTotal] {
        let (database, queue) = queue::<C>().await;
        queue.create_topic(latest(5)).await.unwrap();
        // What it has in hand keeps the log from being trimmed.
        let mut other = consume(&queue, Subscription::new("other", "orders").with_order(order).with_prefetch(1)).await;
        publish_keyed(&queue, 0..1).await;
        let first = next(&mut other).await;
        publish_keyed(&queue, 1..20).await;
        keep_house_until(&queue, || async { cut(&queue, "other").await > 0 }).await;
        assert_eq!(in_log(&database).await, 20);

        let late = invoices().with_order(order).with_start(Start::Beginning);
        let mut stream = consume(&queue, late).await;
        keep_house(&queue).await;
        assert_eq!(number(&next(&mut stream).await), 15, "{order}");
        let behind = Start::After(first.message().position().clone());
        let error = queue
            .insert_subscription(&Subscription::new("behind", "orders").with_order(order).with_start(behind))
            .await
            .unwrap_err();
        assert_says(&error, ErrorKind::Truncated, &["'orders'"]);
    }
}

async fn what_keeps_up_is_not_cut<C: Client>() {
    for order in ORDERS {
        let (_database, queue) = queue::<C>().await;
        queue.create_topic(latest(1)).await.unwrap();
        let mut stream = consume(&queue, invoices().with_order(order)).await;
        for round in 0..5 {
            publish_keyed(&queue, 0..4).await;
            for _ in 0..4 {
                next(&mut stream).await.ok().await.unwrap();
            }
            keep_house(&queue).await;
            assert_eq!(cut(&queue, "invoices").await, 0, "{order}, round {round}");
        }
    }
}

async fn what_is_in_hand_is_not_cut<C: Client>() {
    let (_database, queue) = queue::<C>().await;
    queue.create_topic(latest(1)).await.unwrap();
    let wanted = invoices().with_prefetch(1).with_lease(SHORT_LEASE);
    let mut stream = consume(&queue, wanted.clone()).await;
    publish_numbers(&queue, 0..5).await;
    let held = next(&mut stream).await;
    assert_eq!(number(&held), 0);
    drop(stream);
    keep_house(&queue).await;
    assert!(cut(&queue, "invoices").await > 0);
    held.ok().await.unwrap();
}

async fn laggard_that_loses_nothing_it_selects_is_not_cut<C: Client>() {
    for order in ORDERS {
        let (database, queue) = queue::<C>().await;
        queue.create_topic(latest(5)).await.unwrap();
        let wanted = Subscription::new("rare", "orders").with_order(order).with_selector(Selector::kind("rare"));
        queue.insert_subscription(&wanted).await.unwrap();
        publish_keyed(&queue, 0..20).await;
        queue.publish("orders", vec![NewMessage::new("20").with_kind("rare")]).await.unwrap();
        keep_house_until(&queue, || async { in_log(&database).await == 5 }).await;
        assert_eq!(cut(&queue, "rare").await, 0, "{order}");
        assert_eq!(number(&next(&mut consume(&queue, wanted).await).await), 20, "{order}");
    }
}

/// Commits messages that have come before four others, after those have been consumed and the consumer has left.
async fn commit_behind_the_cursor<C: Backend>(
    database: &Database,
    queue: &PgQueue<C>,
    subscription: Subscription,
    messages: Vec<NewMessage>,
) {
    let mut late = C::open(&database.url()).await;
    queue.publish_in(&mut late, "orders", messages).await.unwrap();
    let mut stream = consume(queue, subscription).await;
    publish_numbers(queue, 0..4).await;
    for delivery in take(&mut stream, 4).await {
        delivery.ok().await.unwrap();
    }
    drop(stream);
    patiently("the consumer's leave", queue.consumers_gone()).await;
    C::commit(late).await;
}

/// As if nobody had moved a cursor for a while.
async fn forget_who_moved(database: &Database) {
    database.sql("update pgqueue.cursor set moved_at = moved_at - interval '1 minute'").await.unwrap();
}

async fn what_came_late_is_cut_once_it_is_given_up<C: Backend>() {
    let (database, queue) = queue::<C>().await;
    queue.create_topic(latest(3)).await.unwrap();
    commit_behind_the_cursor(&database, &queue, invoices(), vec![NewMessage::new("9"), NewMessage::new("9")]).await;
    forget_who_moved(&database).await;
    keep_house(&queue).await;
    assert_eq!(cut(&queue, "invoices").await, 2);
    assert_eq!(in_log(&database).await, 3);
}

async fn late_giant_is_cut_page_by_page<C: Backend>() {
    for order in [Order::Unordered, Order::ByKey] {
        let (database, queue) = queue::<C>().await;
        queue.create_topic(latest(3)).await.unwrap();
        // More than one round cuts.
        let giant = vec![NewMessage::new("9").with_key("k"); 6000];
        commit_behind_the_cursor(&database, &queue, invoices().with_order(order), giant).await;
        publish_keyed(&queue, 0..5).await;
        keep_house_until(&queue, || async {
            forget_who_moved(&database).await;
            in_log(&database).await == 3
        })
        .await;
        assert_eq!(cut(&queue, "invoices").await, 6002, "{order}");
    }
}

async fn cutting_comes_back_as_it_was_set<C: Client>() {
    let (_database, queue) = queue::<C>().await;
    queue.create_topic(latest(7)).await.unwrap();
    assert_eq!(queue.topic("orders").await.unwrap(), latest(7));
    let hold = Topic::new("orders").with_retention(Retention::everything().with_max_messages(7));
    queue.create_topic(hold.clone()).await.unwrap();
    assert_eq!(queue.topic("orders").await.unwrap(), hold);
    let never = Topic::new("orders").with_retention(Retention::nothing().with_laggards(Laggards::Cut));
    let error = queue.create_topic(never).await.unwrap_err();
    assert_says(&error, ErrorKind::Invalid, &["\"orders\"", "cuts laggards"]);
}
