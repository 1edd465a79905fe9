//! A database that is slow, and one that says nothing for long: consumers recover by themselves.

use std::time::{Duration, Instant};

use futures::future::join_all;
use pgqueue_core::{ErrorKind, NewMessage, Publisher, Subscription, subscribe};
use pgqueue_postgres::{Client, Options, PgQueue};
use pgqueue_testserver::{Database, Proxy};
use tokio::time::{sleep, timeout};

use crate::{
    audit::{Audit, patient, work},
    both_clients::on_both_clients,
    common::{SHORT_LEASE, invoices, next, number, patiently, publish_number, publish_numbers, queue, take, until_sql},
};

on_both_clients!(
    half_a_second_of_latency_costs_no_lease,
    silence_longer_than_the_lease_is_recovered_from,
    answer_whose_reply_was_lost_is_unknown,
    messages_whose_claim_was_not_answered_come_again,
    handlers_are_told_when_their_consumer_is_cut_off_for_a_lease,
    who_leaves_while_nobody_answers_is_gone_soon,
);

/// What is held back each way.
const DELAY: Duration = Duration::from_millis(500);

/// For how long nothing moves: longer than statements may take, and than a lease.
const SILENCE: Duration = Duration::from_secs(20);

async fn half_a_second_of_latency_costs_no_lease<C: Client>() {
    let (database, _queue) = queue::<C>().await;
    let proxy = Proxy::start(database.server().port()).await.unwrap();
    let slow = PgQueue::<C>::connect(&database.url_at(proxy.port())).await.unwrap();
    // With connections of its own: ten slow publishers keep a consumer from all that there are.
    let publisher = PgQueue::<C>::connect(&database.url_at(proxy.port())).await.unwrap();
    let audit = Audit::new();
    // As it comes, nothing is repeated here but by the defaults.
    let stream = subscribe(slow.subscription(Subscription::new("invoices", "orders"))).await.unwrap();
    let worker = work(stream, &audit);
    publish_numbers(&publisher, 0..2).await;
    audit.until_handled(0..2).await;
    proxy.set_delay(DELAY);
    let publishes = (2..12).map(|number| publisher.publish("orders", vec![NewMessage::json(&number).unwrap()]));
    for published in patiently("publishing", join_all(publishes)).await {
        published.unwrap();
    }
    audit.until_handled(0..12).await;
    proxy.set_delay(Duration::ZERO);
    publish_numbers(&publisher, 12..14).await;
    audit.until_handled(0..14).await;
    audit.check(0..14, 1);
    assert!(!worker.is_finished());
}

async fn silence_longer_than_the_lease_is_recovered_from<C: Client>() {
    let (_database, direct, proxy, silenced) = far_away::<C>().await;
    let subscription = Subscription::new("invoices", "orders");
    let mut stream = subscribe(silenced.subscription(subscription.clone())).await.unwrap();
    publish_numbers(&direct, 0..5).await;
    let held = take(&mut stream, 5).await;
    let since = Instant::now();
    proxy.black_hole(true);

    // Another gets what the silent one has in hand, once its lease is over, and answers it.
    let audit = Audit::new();
    let other = work(patient(&direct, subscription).await, &audit);
    audit.until_handled(0..5).await;
    other.abort();
    let _ = other.await;
    let silent = work(stream, &audit);
    sleep(SILENCE.saturating_sub(since.elapsed())).await;
    proxy.black_hole(false);
    for delivery in held {
        let number = number(&delivery);
        let refused = patiently("an answer", delivery.ok()).await.expect_err("somebody else has answered it");
        let kinds = [ErrorKind::LeaseLost, ErrorKind::Unknown];
        assert!(kinds.contains(&refused.kind()), "{number}: {refused}");
    }
    // The same stream goes on.
    publish_numbers(&silenced, 5..10).await;
    audit.until_handled(0..10).await;
    audit.check(0..10, 1);
    assert!(!silent.is_finished());
    let mut another = patient(&direct, Subscription::new("later", "orders")).await;
    publish_numbers(&direct, 10..11).await;
    next(&mut another).await.ok().await.unwrap();
}

/// Leases that the server has.
const LEASES: &str = "select count(*) from pgqueue.lease";

/// Within how much time a message is claimed whose claim needs no other answer first.
const SOON: Duration = Duration::from_secs(2);

/// A queue, and the same behind a proxy.
async fn far_away<C: Client>() -> (Database, PgQueue<C>, Proxy, PgQueue<C>) {
    let (database, direct) = queue::<C>().await;
    let proxy = Proxy::start(database.server().port()).await.unwrap();
    let far = PgQueue::<C>::connect(&database.url_at(proxy.port())).await.unwrap();
    (database, direct, proxy, far)
}

/// Loses the answers that are held back, with their connections.
async fn lose_answers(proxy: &Proxy) {
    proxy.cut().await;
    proxy.hold_answers(false);
    proxy.restore().await.unwrap();
}

async fn answer_whose_reply_was_lost_is_unknown<C: Client>() {
    let (database, direct, proxy, far) = far_away::<C>().await;
    let mut stream = patient(&far, invoices()).await;
    // Until every connection has prepared what an answer takes.
    publish_numbers(&direct, 0..50).await;
    for _ in 0..49 {
        next(&mut stream).await.ok().await.unwrap();
    }
    let held = next(&mut stream).await;
    proxy.hold_answers(true);
    let (answer, ()) = tokio::join!(patiently("an answer", held.ok()), async {
        until_sql(&database, LEASES, "0").await; // it is settled, and nobody hears of it
        lose_answers(&proxy).await;
    });
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::Unknown);
}

async fn messages_whose_claim_was_not_answered_come_again<C: Client>() {
    let (database, direct, proxy, far) = far_away::<C>().await;
    let mut stream = patient(&far, invoices().with_lease(3 * SHORT_LEASE)).await;
    // A connection may be tested or prepared first, and then it is that answer which is held back.
    let mut numbers = 0..20;
    let lost = loop {
        let number = numbers.next().expect("a claim that is not answered");
        proxy.hold_answers(true);
        publish_number(&direct, number).await;
        let is_claimed = tokio::select! {
            is_claimed = timeout(SOON, until_sql(&database, LEASES, "1")) => is_claimed.is_ok(),
            delivery = next(&mut stream) => panic!("{delivery:?} though no answer comes through"),
        };
        if is_claimed {
            break number;
        }
        proxy.hold_answers(false);
        next(&mut stream).await.ok().await.unwrap();
        until_sql(&database, LEASES, "0").await;
    };
    lose_answers(&proxy).await;
    let again = next(&mut stream).await;
    assert_eq!((number(&again), again.message().attempt()), (lost, 1));
    again.ok().await.unwrap();
}

async fn handlers_are_told_when_their_consumer_is_cut_off_for_a_lease<C: Client>() {
    let (_database, direct, proxy, far) = far_away::<C>().await;
    let mut stream = patient(&far, invoices().with_lease(SHORT_LEASE)).await;
    publish_number(&direct, 0).await;
    let held = next(&mut stream).await;
    proxy.cut().await;
    patiently("word of a lease that may be lost", held.lease_lost()).await;
    proxy.restore().await.unwrap();
}

async fn who_leaves_while_nobody_answers_is_gone_soon<C: Client>() {
    let (_database, direct, proxy, far) = far_away::<C>().await;
    let far = far.with_options(Options::new().with_time_limit(SHORT_LEASE)).unwrap(); // longer than from beat to beat
    let mut stream = patient(&far, invoices().with_lease(SHORT_LEASE)).await;
    publish_numbers(&direct, 0..2).await;
    let held = take(&mut stream, 2).await;
    proxy.black_hole(true);
    drop(held);
    drop(stream);
    patiently("its end", far.consumers_gone()).await;
}
