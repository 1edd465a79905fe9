//! Checkpoints that move inside of transactions.

use pgqueue_core::{CheckpointStore, ErrorKind, Order, Position, Retention, Start, Topic};
use pgqueue_postgres::{Client, PgQueue};
use pgqueue_tests::WAITS;

use crate::{
    backend::Backend,
    both_clients::on_both_clients,
    common::{assert_says, consume, invoices, next, number, patiently, publish_numbers, queue, until_sql},
};

on_both_clients!(
    checkpoint_and_effect_commit_together,
    checkpoint_and_effect_roll_back_together,
    who_was_superseded_learns_it_inside_of_its_transaction,
    position_of_another_order_is_refused,
    replay_from_the_beginning_takes_effect_again_after_a_reset,
);

const INSERT: &str = "insert into totals values (1)";
const TOTAL: &str = "select count(*) from totals";

/// Messages in stable total order, and their positions.
async fn positions<C: Client>(queue: &PgQueue<C>, count: u64) -> Vec<Position> {
    queue.create_topic(Topic::new("orders").with_retention(Retention::everything())).await.unwrap();
    publish_numbers(queue, 0..count).await;
    let mut stream = consume(queue, invoices().with_order(Order::StableTotal).with_start(Start::Beginning)).await;
    let mut positions = Vec::new();
    for expected in 0..count {
        let delivery = next(&mut stream).await;
        assert_eq!(number(&delivery), expected);
        positions.push(delivery.message().position().clone());
        delivery.ok().await.unwrap();
    }
    drop(stream);
    patiently("the consumer's leave", queue.consumers_gone()).await;
    positions
}

async fn at<C: Client>(queue: &PgQueue<C>) -> Option<Position> {
    queue.checkpoint("totals").await.unwrap().map(|checkpoint| checkpoint.position)
}

async fn checkpoint_and_effect_commit_together<C: Backend>() {
    let (database, queue) = queue::<C>().await;
    database.sql("create table totals (n int)").await.unwrap();
    for position in positions(&queue, 3).await {
        for is_new in [true, false] {
            // The second time stands for a delivery whose answer was lost.
            let mut transaction = C::open(&database.url()).await;
            C::execute(&mut transaction, INSERT).await;
            let moved = queue.advance_checkpoint_in(&mut transaction, "totals", &position).await.unwrap();
            assert_eq!(moved, is_new);
            if moved {
                C::commit(transaction).await;
            } else {
                C::rollback(transaction).await;
            }
            assert_eq!(at(&queue).await.as_ref(), Some(&position));
        }
    }
    assert_eq!(database.sql(TOTAL).await.unwrap(), "3");
}

async fn checkpoint_and_effect_roll_back_together<C: Backend>() {
    let (database, queue) = queue::<C>().await;
    database.sql("create table totals (n int)").await.unwrap();
    let positions = positions(&queue, 2).await;
    queue.advance_checkpoint("totals", &positions[0]).await.unwrap();
    let mut transaction = C::open(&database.url()).await;
    C::execute(&mut transaction, INSERT).await;
    assert!(queue.advance_checkpoint_in(&mut transaction, "totals", &positions[1]).await.unwrap());
    C::rollback(transaction).await;
    assert_eq!(at(&queue).await.as_ref(), Some(&positions[0]));
    assert_eq!(database.sql(TOTAL).await.unwrap(), "0");
}

async fn who_was_superseded_learns_it_inside_of_its_transaction<C: Backend>() {
    let (database, queue) = queue::<C>().await;
    let position = positions(&queue, 1).await.pop().unwrap();
    let mut first = C::open(&database.url()).await;
    assert!(queue.advance_checkpoint_in(&mut first, "totals", &position).await.unwrap());

    let mut second = C::open(&database.url()).await;
    let waiting = tokio::spawn({
        let (queue, position) = (queue.clone(), position.clone());
        async move { (queue.advance_checkpoint_in(&mut second, "totals", &position).await.unwrap(), second) }
    });
    until_sql(&database, WAITS, "1").await;
    C::commit(first).await;
    let (moved, second) = patiently("the second", waiting).await.unwrap();
    assert!(!moved);
    C::rollback(second).await;
}

async fn position_of_another_order_is_refused<C: Client>() {
    let (_database, queue) = queue::<C>().await;
    let mut stream = consume(&queue, invoices().with_order(Order::Total)).await;
    publish_numbers(&queue, [1]).await;
    let delivery = next(&mut stream).await;
    let error = queue.advance_checkpoint("totals", delivery.message().position()).await.unwrap_err();
    assert_says(&error, ErrorKind::Invalid, &["not one in stable total order"]);
    assert_eq!(at(&queue).await, None);
}

async fn replay_from_the_beginning_takes_effect_again_after_a_reset<C: Backend>() {
    let (database, queue) = queue::<C>().await;
    let positions = positions(&queue, 3).await;
    for position in &positions {
        assert!(queue.advance_checkpoint("totals", position).await.unwrap());
    }
    let mut transaction = C::open(&database.url()).await;
    queue.reset_checkpoint_in(&mut transaction, "totals", &positions[2], None).await.unwrap();
    C::rollback(transaction).await;
    assert_eq!(at(&queue).await.as_ref(), Some(&positions[2]));
    let mut transaction = C::open(&database.url()).await;
    let error = queue.reset_checkpoint_in(&mut transaction, "totals", &positions[1], None).await.unwrap_err();
    assert_says(&error, ErrorKind::Conflict, &["\"totals\" stands at"]);
    queue.reset_checkpoint_in(&mut transaction, "totals", &positions[2], None).await.unwrap();
    C::commit(transaction).await;
    queue.seek("invoices", &Start::Beginning).await.unwrap();
    let mut stream = consume(&queue, invoices().with_order(Order::StableTotal)).await;
    for position in &positions {
        let delivery = next(&mut stream).await;
        assert_eq!(delivery.message().position(), position);
        assert!(queue.advance_checkpoint("totals", position).await.unwrap());
        delivery.ok().await.unwrap();
    }
}
