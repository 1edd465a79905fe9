//! What housekeeping must not delete: whatever somebody is still going to get.

use pgqueue_core::{NewMessage, Subscription};
use pgqueue_postgres::Client;

use crate::{
    backend::Backend,
    both_clients::on_both_clients,
    common::{consume, invoices, next, number, publish_number, publish_numbers, queue, until_sql},
};

on_both_clients!(
    what_a_claim_left_for_the_next_is_kept,
    what_commits_late_is_kept,
    what_comes_while_a_subscription_is_made_is_kept_for_it,
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
    for n in 1..10 {
        let delivery = next(&mut stream).await;
        assert_eq!(number(&delivery), n);
        delivery.ok().await.unwrap();
    }
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
