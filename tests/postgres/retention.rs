//! What a topic keeps of what its subscriptions have passed, and where the past ends.

use std::{ops::Range, time::Duration};

use pgqueue_core::{Ack, ErrorKind, NewMessage, Order, Position, Publisher, Retention, Start, Subscription, Topic};
use pgqueue_postgres::{Client, PgQueue};

use crate::{
    backend::Backend,
    both_clients::on_both_clients,
    common::{consume, invoices, next, number, publish_numbers, queue, quiet, try_consume},
};

on_both_clients!(
    a_topic_keeps_the_latest_messages_up_to_its_limits,
    what_a_subscription_has_not_passed_is_kept_for_it,
    nothing_is_kept_unless_it_is_asked_for,
    who_starts_behind_what_is_kept_is_told,
    who_starts_where_something_came_late_and_is_gone_is_told,
    a_position_of_another_database_is_refused,
    a_position_stays_with_a_message_that_died,
    a_start_in_the_past_sees_what_is_deleted,
    what_came_late_counts_as_retained,
    retention_comes_back_as_it_was_set,
);

fn orders(retention: Retention) -> Topic {
    Topic::new("orders").with_retention(retention)
}

fn starting(name: &str, start: Start) -> Subscription {
    Subscription::new(name, "orders").with_order(Order::Total).with_start(start)
}

/// Passes everything, and lets the housekeeping delete what may go.
async fn pass<C: Client>(queue: &PgQueue<C>, numbers: Range<u64>) -> Vec<Position> {
    let mut stream = consume(queue, invoices().with_order(Order::Total)).await;
    let expected = numbers.clone().count();
    publish_numbers(queue, numbers).await;
    let mut positions = Vec::new();
    while positions.len() < expected {
        let delivery = next(&mut stream).await;
        positions.push(delivery.message().position().clone());
        delivery.ok().await.unwrap();
    }
    queue.maintain().await.unwrap();
    positions
}

async fn left<C: Client>(queue: &PgQueue<C>, name: &str, count: usize) -> Vec<u64> {
    let mut stream = consume(queue, starting(name, Start::Beginning)).await;
    let mut numbers = Vec::new();
    for _ in 0..count {
        let delivery = next(&mut stream).await;
        numbers.push(number(&delivery));
        delivery.ok().await.unwrap();
    }
    quiet(&mut stream).await;
    numbers
}

async fn a_topic_keeps_the_latest_messages_up_to_its_limits<C: Client>() {
    const AGE: Duration = Duration::from_secs(3600);
    let everything = Retention::everything();
    // A number of one digit is one byte.
    for retention in [everything.with_max_messages(4), everything.with_max_bytes(4), everything.with_max_age(AGE)] {
        let (database, queue) = queue::<C>().await;
        queue.create_topic(orders(retention)).await.unwrap();
        pass(&queue, 0..6).await;
        if retention.max_age().is_some() {
            assert_eq!(left(&queue, "before", 6).await, [0, 1, 2, 3, 4, 5], "{retention:?}");
            let an_hour_later = "update pgqueue.log set published_at = published_at - interval '1 hour'";
            database.sql(an_hour_later).await.unwrap();
        }
        pass(&queue, 6..10).await;
        assert_eq!(left(&queue, "after", 4).await, [6, 7, 8, 9], "{retention:?}");
    }
}

async fn what_a_subscription_has_not_passed_is_kept_for_it<C: Client>() {
    let (_database, queue) = queue::<C>().await;
    queue.create_topic(orders(Retention::everything().with_max_messages(1))).await.unwrap();
    queue.insert_subscription(&starting("slow", Start::Now)).await.unwrap();
    pass(&queue, 0..5).await;
    assert_eq!(left(&queue, "slow", 5).await, [0, 1, 2, 3, 4]);
    queue.maintain().await.unwrap();
    assert_eq!(left(&queue, "late", 1).await, [4]);
}

async fn nothing_is_kept_unless_it_is_asked_for<C: Client>() {
    let (_database, queue) = queue::<C>().await;
    pass(&queue, 0..5).await;
    assert_eq!(left(&queue, "late", 0).await, [0; 0]);
}

async fn who_starts_behind_what_is_kept_is_told<C: Client>() {
    let (_database, queue) = queue::<C>().await;
    queue.create_topic(orders(Retention::everything().with_max_messages(3))).await.unwrap();
    let positions = pass(&queue, 0..6).await;
    for (n, position) in positions.iter().enumerate() {
        let subscription = starting(&n.to_string(), Start::After(position.clone()));
        match n {
            0 | 1 => {
                let error = try_consume(&queue, subscription).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Truncated, "{error}");
                assert!(error.to_string().contains("topic 'orders'") && error.to_string().contains("start from"));
            }
            _ => {
                let mut stream = consume(&queue, subscription).await;
                if n + 1 < positions.len() {
                    assert_eq!(number(&next(&mut stream).await), n as u64 + 1);
                }
            }
        }
    }
}

async fn who_starts_where_something_came_late_and_is_gone_is_told<C: Backend>() {
    let (database, queue) = queue::<C>().await;
    queue.create_topic(orders(Retention::everything().with_max_messages(1))).await.unwrap();
    // Its id is drawn before those of the others, and it commits after they were handed out.
    let mut late = C::open(&database.url()).await;
    queue.publish_in(&mut late, "orders", vec![NewMessage::new("9")]).await.unwrap();
    let positions = pass(&queue, 0..3).await;
    C::commit(late).await;
    let last = positions.last().unwrap();
    let mut stream = consume(&queue, invoices().with_order(Order::Total)).await;
    let delivery = next(&mut stream).await;
    assert_eq!(number(&delivery), 9);
    delivery.ok().await.unwrap();
    queue.maintain().await.unwrap();

    let error = try_consume(&queue, starting("before", Start::After(last.clone()))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Truncated, "{error}");
}

async fn a_position_of_another_database_is_refused<C: Client>() {
    let (database, queue) = queue::<C>().await;
    queue.publish("orders", vec![NewMessage::new("0")]).await.unwrap();
    database.sql("select pg_current_xact_id()").await.unwrap();
    for beyond in ["0000000000000000002", "0000000000000000001-9-99999999999:99999999999:"] {
        let start = Start::After(Position::new(beyond));
        let error = queue.insert_subscription(&starting("s", start)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("beyond the end of the log"), "{error}");
    }
    let last = Start::After(Position::new("0000000000000000001"));
    queue.insert_subscription(&starting("s", last)).await.unwrap();
}

async fn retention_comes_back_as_it_was_set<C: Client>() {
    let (_database, queue) = queue::<C>().await;
    assert_eq!(queue.topic("orders").await.unwrap().retention(), Retention::nothing());
    let everything = Retention::everything();
    let week = Duration::from_secs(7 * 24 * 60 * 60);
    for retention in [everything, everything.with_max_age(week).with_max_bytes(5), everything.with_max_messages(7)] {
        queue.create_topic(orders(retention)).await.unwrap();
        assert_eq!(queue.topic("orders").await.unwrap(), orders(retention));
    }
    // Longer than any clock runs.
    queue.create_topic(orders(everything.with_max_age(Duration::MAX))).await.unwrap();
    pass(&queue, 0..3).await;
    assert_eq!(left(&queue, "late", 3).await, [0, 1, 2]);
}

async fn a_position_stays_with_a_message_that_died<C: Backend>() {
    let (database, queue) = queue::<C>().await;
    queue.create_topic(orders(Retention::everything())).await.unwrap();
    let mut late = C::open(&database.url()).await;
    queue.publish_in(&mut late, "orders", vec![NewMessage::new("9")]).await.unwrap();
    let mut stream = consume(&queue, invoices().with_order(Order::Total)).await;
    publish_numbers(&queue, [1]).await;
    let delivery = next(&mut stream).await;
    let first = delivery.message().position().clone();
    delivery.settle(Ack::reject("dead")).await.unwrap();
    assert_eq!(queue.dead_letters("invoices").await.unwrap()[0].message.position(), &first);
    queue.redrive("invoices").await.unwrap();
    let again = next(&mut stream).await;
    assert_eq!(again.message().position(), &first);
    again.ok().await.unwrap();
    C::commit(late).await;
    let mut stream = consume(&queue, starting("after", Start::After(first))).await;
    assert_eq!(number(&next(&mut stream).await), 9);
}

async fn a_start_in_the_past_sees_what_is_deleted<C: Backend>() {
    let (database, queue) = queue::<C>().await;
    let strict = C::pool(&database.url(), 2, "repeatable read");
    let error = C::over(&strict).insert_subscription(&starting("s", Start::Beginning)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fatal);
    let error = C::over(&strict).maintain().await.unwrap_err();
    assert!(error.to_string().contains("READ COMMITTED"), "{error}");
    queue.insert_subscription(&starting("s", Start::Beginning)).await.unwrap();
}

async fn what_came_late_counts_as_retained<C: Backend>() {
    let (database, queue) = queue::<C>().await;
    queue.create_topic(orders(Retention::everything().with_max_messages(3))).await.unwrap();
    let mut late = C::open(&database.url()).await;
    queue.publish_in(&mut late, "orders", vec![NewMessage::new("9"); 8]).await.unwrap();
    pass(&queue, 0..5).await;
    C::commit(late).await;
    let mut stream = consume(&queue, invoices().with_order(Order::Total)).await;
    for _ in 0..8 {
        next(&mut stream).await.ok().await.unwrap();
    }
    queue.maintain().await.unwrap();
    assert_eq!(database.sql("select messages from pgqueue.extent").await.unwrap(), "3");
    assert_eq!(left(&queue, "late", 3).await, [2, 3, 4]);
}
