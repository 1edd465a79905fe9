//! Subscriptions that have one consumer at a time.

use std::time::Duration;

use futures::StreamExt;
use pgqueue_core::{Consumers, ErrorKind, Order, Start, Subscription, subscribe};
use pgqueue_postgres::{Client, PgQueue};
use tokio::time::{Instant, timeout};

use crate::{
    backend::Backend,
    common::{
        PATIENCE, QUIET, SHORT_LEASE, assert_says, consume, end, invoices, next, number, on_both_clients, patiently,
        publish_number, publish_numbers, queue, quiet,
    },
};

on_both_clients!(
    standby_takes_over_within_a_moment_of_a_leave,
    idle_active_consumer_stays_active,
    consumer_that_was_silent_for_its_lease_comes_back_as_standby,
    claim_in_progress_keeps_others_from_taking_over,
    consumers_may_be_changed_later,
    seeking_waits_for_nobody_and_says_who_is_in_the_way,
);

fn one_at_a_time() -> Subscription {
    invoices().with_consumers(Consumers::SingleActive).with_lease(SHORT_LEASE)
}

async fn standby_takes_over_within_a_moment_of_a_leave<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let other = PgQueue::<C>::connect(&database.url()).await.unwrap();
    // So that a takeover after the lease would be seen.
    let wanted = one_at_a_time().with_lease(PATIENCE * 10);
    let mut active = consume(&queue, wanted.clone()).await;
    publish_number(&queue, 1).await;
    next(&mut active).await.ok().await.unwrap();
    let mut standby = consume(&other, wanted).await;
    quiet(&mut standby).await;

    drop(active);
    publish_number(&queue, 2).await;
    assert_eq!(number(&next(&mut standby).await), 2);
}

async fn idle_active_consumer_stays_active<C: Client>() {
    let (_database, queue) = queue::<C>().await;
    let mut active = consume(&queue, one_at_a_time()).await;
    quiet(&mut active).await;
    let mut standby = consume(&queue, one_at_a_time()).await;
    let since = Instant::now();
    while since.elapsed() < SHORT_LEASE * 3 {
        assert!(timeout(QUIET, standby.next()).await.is_err());
    }
    publish_number(&queue, 1).await;
    assert_eq!(number(&next(&mut active).await), 1);
}

async fn consumer_that_was_silent_for_its_lease_comes_back_as_standby<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let wanted = one_at_a_time().with_order(Order::Total);
    let mut frozen = consume(&queue, wanted.clone()).await;
    publish_numbers(&queue, 0..2).await;
    let held = next(&mut frozen).await;
    // As if it had been silent, and a living one had found out.
    let mut second = consume(&queue, wanted).await;
    quiet(&mut second).await;
    let silence = "update pgqueue.owner set beat_at = beat_at - interval '1 hour', suspected_at = now() - interval '1 hour' \
                   where id = (select active from pgqueue.subscription)";
    let buried = format!("with silent as ({silence}) select 1; select pgqueue.bury_owners()");
    let since = Instant::now();
    let first = loop {
        // It beats in between, so that more than one attempt may be needed.
        database.sql(&buried).await.unwrap();
        if let Ok(delivery) = timeout(Duration::from_millis(300), second.next()).await {
            break delivery.unwrap().unwrap();
        }
        assert!(since.elapsed() < PATIENCE);
    };
    assert_eq!(number(&first), 0);
    assert_eq!(held.ok().await.unwrap_err().kind(), ErrorKind::LeaseLost);
    quiet(&mut frozen).await;
    first.ok().await.unwrap();
    assert_eq!(number(&next(&mut second).await), 1);
}

async fn claim_in_progress_keeps_others_from_taking_over<C: Backend>() {
    let (database, queue) = queue::<C>().await;
    queue.insert_subscription(&one_at_a_time()).await.unwrap();
    publish_number(&queue, 1).await;
    let claim = "select count(id) from pgqueue.claim((select id from pgqueue.subscription), \
                 '00000000-0000-0000-0000-000000000001', gen_random_uuid(), 1, false, false, 0, false)";
    // Becomes active, then claims and does not commit.
    database.sql(claim).await.unwrap();
    let mut open = C::begin(&database.url()).await;
    C::execute(&mut open, claim).await;
    database.sql("delete from pgqueue.owner").await.unwrap();
    let mut other = consume(&queue, one_at_a_time()).await;
    quiet(&mut other).await;
    C::rollback(open).await;
    assert_eq!(number(&next(&mut other).await), 1);
}

async fn consumers_may_be_changed_later<C: Client>() {
    let (_database, queue) = queue::<C>().await;
    let mut first = consume(&queue, invoices().with_prefetch(1)).await;
    let shared = invoices().with_prefetch(1).with_consumers(Consumers::SingleActive).with_workers(3);
    queue.alter_subscription(&shared).await.unwrap();
    assert_eq!(queue.find_subscription("invoices").await.unwrap(), Some(shared));
    let exclusive = invoices().with_prefetch(1).with_consumers(Consumers::Exclusive);
    queue.alter_subscription(&exclusive).await.unwrap();
    assert_eq!(queue.find_subscription("invoices").await.unwrap(), Some(exclusive.clone()));
    assert_eq!(queue.find_subscription("others").await.unwrap(), None);
    publish_numbers(&queue, 0..2).await;
    next(&mut first).await.ok().await.unwrap();
    let mut second = consume(&queue, exclusive).await;
    assert_says(&end(&mut second).await, ErrorKind::Conflict, &["\"invoices\" is exclusive"]);
    next(&mut first).await.ok().await.unwrap();
}

async fn seeking_waits_for_nobody_and_says_who_is_in_the_way<C: Client>() {
    let (_database, queue) = queue::<C>().await;
    let mut stream = patiently("a stream", subscribe(queue.subscription(invoices()))).await.unwrap();
    publish_number(&queue, 1).await;
    let held = next(&mut stream).await;
    let error = patiently("an answer", queue.seek("invoices", &Start::Now)).await.unwrap_err();
    assert_says(&error, ErrorKind::Conflict, &["'invoices' has living consumers"]);
    held.ok().await.unwrap();
}
