//! Publishing once, by several at the same time.

use pgqueue_core::{NewMessage, Publisher};
use pgqueue_tests::WAITS;

use crate::{
    backend::Backend,
    both_clients::on_both_clients,
    common::{patiently, queue, until_sql},
};

on_both_clients!(publishers_of_the_same_ids_do_not_wait_in_a_circle);

fn once(id: &str) -> NewMessage {
    NewMessage::new(id.to_owned()).with_dedup_id(id)
}

async fn publishers_of_the_same_ids_do_not_wait_in_a_circle<C: Backend>() {
    let (database, queue) = queue::<C>().await;
    let mut transaction = C::open(&database.url()).await;
    let first = queue.publish_in(&mut transaction, "orders", vec![once("a")]).await.unwrap();
    let other = tokio::spawn({
        let queue = queue.clone();
        async move { queue.publish("orders", vec![once("b"), once("a")]).await }
    });
    until_sql(&database, WAITS, "1").await;
    // It waits for "a", and has not taken "b".
    let second = queue.publish_in(&mut transaction, "orders", vec![once("b")]).await.unwrap();
    C::commit(transaction).await;
    let ids = patiently("the other publisher", other).await.unwrap().unwrap();
    assert_eq!(ids, [second, first].concat());
}
