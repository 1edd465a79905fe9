//! What housekeeping must not delete, which is whatever somebody is still going to get; and what it must not keep for ever.

use std::collections::BTreeSet;

use pgqueue_core::{NewMessage, Order, Publisher, Selector, Subscription, bucket};
use pgqueue_postgres::Client;

use crate::{
    backend::Backend,
    both_clients::on_both_clients,
    common::{claim_of, consume, invoices, next, number, publish_number, publish_numbers, queue, until_sql},
};

on_both_clients!(
    what_a_claim_left_for_the_next_is_kept,
    what_commits_late_is_kept,
    what_comes_while_a_subscription_is_made_is_kept_for_it,
    what_nobody_selects_is_not_kept,
    what_no_lane_waits_for_any_more_is_not_kept,
    what_was_claimed_for_a_dead_consumer_comes_again,
);

/// Whatever a consumer held is back, and it does no chores any more.
const NOBODY: &str = "select count(*) from pgqueue.owner";

async fn what_a_claim_left_for_the_next_is_kept<C: Client>() {
    let (database, queue) = queue::<C>().await;
    queue.insert_subscription(&invoices().with_prefetch(1)).await.unwrap();
    publish_numbers(&queue, 0..10).await;
    let mut stream = consume(&queue, invoices().with_prefetch(1)).await;
    next(&mut stream).await.ok().await.unwrap();
    drop(stream);
    until_sql(&database, NOBODY, "0").await;
    queue.maintain().await.unwrap(); // the claim's snapshot saw all of them
    let mut stream = consume(&queue, invoices()).await;
    let mut came = BTreeSet::new(); // what the first had taken in advance may come later
    for _ in 1..10 {
        let delivery = next(&mut stream).await;
        came.insert(number(&delivery));
        delivery.ok().await.unwrap();
    }
    assert_eq!(came, (1..10).collect());
}

async fn what_commits_late_is_kept<C: Backend>() {
    let (database, queue) = queue::<C>().await;
    queue.insert_subscription(&invoices()).await.unwrap();
    let mut transaction = C::open(&database.url()).await;
    queue.publish_in(&mut transaction, "orders", vec![NewMessage::json(&1).unwrap()]).await.unwrap();
    publish_number(&queue, 2).await;
    let mut stream = consume(&queue, invoices()).await;
    let second = next(&mut stream).await;
    assert_eq!(number(&second), 2);
    second.ok().await.unwrap();
    drop(stream);
    until_sql(&database, NOBODY, "0").await;
    C::commit(transaction).await;
    queue.maintain().await.unwrap(); // it is below what was handed out last
    assert_eq!(number(&next(&mut consume(&queue, invoices()).await).await), 1);
}

async fn what_comes_while_a_subscription_is_made_is_kept_for_it<C: Backend>() {
    let (database, queue) = queue::<C>().await;
    let mut transaction = C::open(&database.url()).await;
    let insert =
        "select id from pgqueue.insert_subscription('invoices', 'orders', 'unordered', 1, 100, 60000, 20, 0, 1, 0, 0)";
    C::execute(&mut transaction, insert).await;
    publish_number(&queue, 1).await;
    queue.maintain().await.unwrap(); // nobody has a subscription, as far as it can see
    C::commit(transaction).await;
    assert_eq!(number(&next(&mut consume(&queue, Subscription::new("invoices", "orders")).await).await), 1);
}

const LOG: &str = "select count(*) from pgqueue.log";

async fn what_nobody_selects_is_not_kept<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let mut stream = consume(&queue, invoices().with_selector(Selector::kind("wanted"))).await;
    publish_numbers(&queue, 0..10).await;
    tokio::select! {
        () = until_sql(&database, LOG, "0") => {}
        delivery = next(&mut stream) => panic!("{delivery:?}"),
    }
}

async fn what_no_lane_waits_for_any_more_is_not_kept<C: Backend>() {
    let (database, queue) = queue::<C>().await;
    let mut stream = consume(&queue, invoices().with_order(Order::ByKey)).await;
    let of = |key: &str, n: u64| vec![NewMessage::json(&n).unwrap().with_key(key)];
    assert_ne!(bucket("a", 16), bucket("b", 16)); // as many as a topic has, unless it is told
    let mut transaction = C::open(&database.url()).await;
    queue.publish_in(&mut transaction, "orders", of("a", 1)).await.unwrap();
    queue.publish("orders", of("b", 2)).await.unwrap();
    let second = next(&mut stream).await;
    assert_eq!(number(&second), 2); // the lane of its key has seen that a transaction is in progress
    second.ok().await.unwrap();
    C::commit(transaction).await;
    let first = next(&mut stream).await;
    assert_eq!(number(&first), 1);
    first.ok().await.unwrap();
    tokio::select! {
        () = until_sql(&database, LOG, "0") => {}
        delivery = next(&mut stream) => panic!("{delivery:?}"),
    }
}

/// A claim that began before its owner was buried, and committed after.
async fn what_was_claimed_for_a_dead_consumer_comes_again<C: Client>() {
    let (database, queue) = queue::<C>().await;
    queue.insert_subscription(&invoices()).await.unwrap();
    publish_number(&queue, 1).await;
    let claim = claim_of("00000000-0000-0000-0000-000000000001", 10);
    assert_eq!(database.sql(&claim).await.unwrap(), "1");
    database
        .sql("delete from pgqueue.owner; update pgqueue.lease set claimed_at = now() - interval '2 minutes'")
        .await
        .unwrap();
    queue.maintain().await.unwrap();
    assert_eq!(number(&next(&mut consume(&queue, invoices()).await).await), 1);
}
