//! Subscriptions that have one consumer at a time.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use pgqueue_core::{Consumers, ErrorKind, Order, Start, Subscription, subscribe};
use pgqueue_postgres::{Client, PgQueue};
use pgqueue_tests::WAITS;
use tokio::time::{Instant, timeout};

use crate::{
    backend::Backend,
    both_clients::on_both_clients,
    common::{
        PATIENCE, QUIET, SHORT_LEASE, assert_says, consume, end, invoices, next, number, patiently, publish_number,
        publish_numbers, queue, quiet, until_sql,
    },
};

on_both_clients!(
    standby_takes_over_within_a_moment_of_a_leave,
    idle_active_consumer_stays_active,
    consumer_that_was_silent_for_its_lease_comes_back_as_standby,
    claim_in_progress_keeps_others_from_taking_over,
    consumers_may_be_changed_later,
    seeking_waits_for_nobody_and_says_who_is_in_the_way,
    seeking_sees_what_a_settlement_in_progress_leaves,
    seeking_needs_read_committed,
);

/// As if the active consumer had been silent, and a living one had found out.
const ACTIVE_WAS_SILENT: &str = "update pgqueue.owner \
    set beat_at = beat_at - interval '1 hour', suspected_at = now() - interval '1 hour' \
    where id = (select active from pgqueue.subscription)";

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
    let mut second = consume(&queue, wanted).await;
    quiet(&mut second).await;
    let since = Instant::now();
    let first = loop {
        // It beats in between, so that more than one attempt may be needed.
        database.sql(ACTIVE_WAS_SILENT).await.unwrap();
        database.sql("select pgqueue.bury_owners()").await.unwrap();
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
    let mut open = C::open(&database.url()).await;
    C::execute(&mut open, claim).await;
    database.sql(ACTIVE_WAS_SILENT).await.unwrap();
    assert_eq!(database.sql("select pgqueue.bury_owners()").await.unwrap(), "");
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

async fn seeking_sees_what_a_settlement_in_progress_leaves<C: Backend>() {
    let (database, queue) = queue::<C>().await;
    let driver = Arc::new(queue.subscription(invoices().with_lease(SHORT_LEASE)));
    let mut stream = patiently("a stream", subscribe(Arc::clone(&driver))).await.unwrap();
    publish_number(&queue, 1).await;
    let _held = next(&mut stream).await;
    driver.crash();
    let living = "select count(*) from pgqueue.owner where beat_at > clock_timestamp() - interval '1 second'";
    until_sql(&database, living, "0").await;

    let mut settlement = C::open(&database.url()).await;
    let reject = "select pgqueue.settle(subscription, '{}', '{}', array[id], array[token], ids, '{2}', '{0}', '{null}', '{no}') \
                  from pgqueue.lease";
    C::execute(&mut settlement, reject).await;
    let seeking = tokio::spawn({
        let queue = queue.clone();
        async move { queue.seek("invoices", &Start::Now).await }
    });
    until_sql(&database, WAITS, "1").await;
    C::commit(settlement).await;
    let error = patiently("the seek", seeking).await.unwrap().unwrap_err();
    assert_says(&error, ErrorKind::Conflict, &["'invoices' has dead letters"]);
    assert_eq!(queue.dead_letters("invoices").await.unwrap().len(), 1);
}

async fn seeking_needs_read_committed<C: Backend>() {
    let (database, queue) = queue::<C>().await;
    queue.insert_subscription(&invoices()).await.unwrap();
    let strict = C::over(&C::pool(&database.url(), 1, "repeatable read"));
    let error = strict.seek("invoices", &Start::Now).await.unwrap_err();
    assert_says(&error, ErrorKind::Fatal, &["READ COMMITTED"]);
    queue.seek("invoices", &Start::Now).await.unwrap();
}
