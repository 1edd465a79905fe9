//! The three tests that canastic/pgqueue has against a server, with their sequences.

use pgqueue_postgres::{Client, Locking};

use crate::{
    both_clients::on_both_clients,
    common::{next, quiet},
    table::{consume, database, driver, insert, left, messages, payload, payloads, tables},
};

on_both_clients!(
    ordered_is_first_in_first_out_for_two_subscriptions_of_two_consumers,
    unordered_hands_out_all_to_two_consumers,
    several_rows_a_delivery_are_answered_as_one,
);

async fn ordered_is_first_in_first_out_for_two_subscriptions_of_two_consumers<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    for subscription in ["a", "b"] {
        insert(&database, subscription, 0..3).await;
    }
    for subscription in ["a", "b"] {
        let mut first = consume(driver(&tables, subscription, Locking::Ordered)).await;
        let mut second = consume(driver(&tables, subscription, Locking::Ordered)).await;
        for expected in 0..3 {
            // Whichever asks gets the next; here they take turns.
            let delivery = next(if expected % 2 == 0 { &mut first } else { &mut second }).await;
            assert_eq!(payload(&delivery), expected.to_string());
            if expected == 2 {
                insert(&database, subscription, 3..6).await; // while the last is in hand
            }
            delivery.ok().await.unwrap();
        }
        for expected in 3..6 {
            let delivery = next(if expected % 2 == 0 { &mut first } else { &mut second }).await;
            assert_eq!(payload(&delivery), expected.to_string());
            delivery.ok().await.unwrap();
        }
        quiet(&mut first).await;
        quiet(&mut second).await;

        insert(&database, subscription, 6..7).await;
        let unanswered = next(&mut first).await;
        assert_eq!(payload(&unanswered), "6");
        drop((first, unanswered));
        let again = next(&mut second).await;
        assert_eq!(payload(&again), "6");
        again.ok().await.unwrap();
        quiet(&mut second).await;
    }
    assert_eq!(left(&database).await, "0");
}

async fn unordered_hands_out_all_to_two_consumers<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..3).await;
    let mut first = consume(driver(&tables, "a", Locking::Unordered)).await;
    let mut second = consume(driver(&tables, "a", Locking::Unordered)).await;
    let mut seen = Vec::new();
    for round in 0..2 {
        let (one, other) = (next(&mut first).await, next(&mut second).await);
        seen.extend([payload(&one), payload(&other)]);
        if round == 0 {
            insert(&database, "a", 3..6).await;
        }
        one.ok().await.unwrap();
        other.ok().await.unwrap();
    }
    for _ in 0..2 {
        let delivery = next(&mut first).await;
        seen.push(payload(&delivery));
        delivery.ok().await.unwrap();
    }
    seen.sort();
    assert_eq!(seen, ["0", "1", "2", "3", "4", "5"]);
    quiet(&mut first).await;
    quiet(&mut second).await;
}

async fn several_rows_a_delivery_are_answered_as_one<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    let driver = || tables.query(messages::<C>("a", Locking::Ordered).with_batch(3));
    insert(&database, "a", 0..5).await;
    let mut stream = consume(driver()).await;
    for expected in [vec![0, 1, 2], vec![3, 4]] {
        let delivery = next(&mut stream).await;
        assert_eq!(payloads(&delivery), expected);
        delivery.ok().await.unwrap();
    }
    insert(&database, "a", 5..6).await;
    let delivery = next(&mut stream).await;
    assert_eq!(payloads(&delivery), [5]);
    delivery.ok().await.unwrap();
    drop(stream);

    let mut stream = consume(driver()).await;
    quiet(&mut stream).await;
    insert(&database, "a", 6..10).await;
    let delivery = next(&mut stream).await;
    assert_eq!(payloads(&delivery), [6, 7, 8]);
    delivery.requeue().await.unwrap();
    drop(stream);

    let mut stream = consume(driver()).await;
    for expected in [vec![6, 7, 8], vec![9]] {
        let delivery = next(&mut stream).await;
        assert_eq!(payloads(&delivery), expected);
        delivery.ok().await.unwrap();
    }
}
