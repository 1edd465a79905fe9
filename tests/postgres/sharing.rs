//! How work that comes again and work that is new share a subscription.

use pgqueue_postgres::Client;

use crate::{
    both_clients::on_both_clients,
    common::{claim_of, consume, invoices, next, number, publish_numbers, queue},
};

on_both_clients!(old_work_and_new_work_both_go_on);

/// How much there is of each: more than is taken.
const MORE: u64 = 40;

/// One claim in so many takes new work first.
const FRESH_FIRST: u64 = 4;

async fn old_work_and_new_work_both_go_on<C: Client>() {
    let (database, queue) = queue::<C>().await;
    // One message a claim, so that each claim shows in what comes.
    let subscription = invoices().with_prefetch(1);
    queue.insert_subscription(&subscription).await.unwrap();
    publish_numbers(&queue, 0..MORE).await;
    let somebody = "00000000-0000-0000-0000-000000000001";
    assert_eq!(database.sql(&claim_of(somebody, MORE)).await.unwrap(), MORE.to_string());
    database.sql(&format!("select pgqueue.leave('{somebody}')")).await.unwrap();
    publish_numbers(&queue, MORE..2 * MORE).await;

    let mut stream = consume(&queue, subscription).await;
    let mut numbers = Vec::new();
    for _ in 0..MORE {
        let delivery = next(&mut stream).await;
        numbers.push(number(&delivery));
        delivery.ok().await.unwrap();
    }
    let (old, new): (Vec<_>, Vec<_>) = numbers.iter().copied().partition(|number: &u64| *number < MORE);
    let wanted = MORE / FRESH_FIRST;
    // A claim that found another at work would have brought nothing.
    assert!((wanted - 2..=wanted + 2).contains(&(new.len() as u64)), "{numbers:?}");
    assert!(old.is_sorted() && new.is_sorted(), "{numbers:?}");
}
