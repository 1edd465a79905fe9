//! What the pulse, which looks and beats for consumers that have nothing in hand, must not get in the way of.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::StreamExt;
use pgqueue_core::{ConsumeStream, Consumers, ErrorKind, NewMessage, PublisherExt, Subscription};
use pgqueue_postgres::{Client, ClientError, PgQueue};
use pgqueue_tests::WAITS;
use pgqueue_testserver::Database;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    backend::Backend,
    between::{Between, Deaf, Meddle, meddled},
    both_clients::on_both_clients,
    common::{
        PATIENCE, QUIET, SHORT_LEASE, assert_says, claim_of, consume, end, invoices, next, number, patiently,
        publish_number, queue, quiet, until_sql,
    },
};

on_both_clients!(
    who_has_something_in_hand_at_every_pulse_and_nothing_when_it_would_beat_is_not_silent,
    pulse_on_its_way_brings_nobody_back_who_left,
    pulse_and_deletion_do_not_wait_for_each_other,
    pulse_and_claim_do_not_wait_for_each_other,
    stalled_pulse_lets_no_idle_consumer_be_buried,
    what_is_scheduled_does_not_wait_for_the_log_to_be_trimmed,
    what_is_scheduled_between_two_pulses_comes_within_a_second,
    what_a_claim_took_whose_answer_was_lost_comes_again_however_late_it_commits,
    answer_that_finds_the_subscription_gone_ends_the_stream_without_a_ring,
);

const PULSE: &str = "pgqueue.pulse(";

/// Of consumers that pulses and beats go for three times.
const LEASE: Duration = Duration::from_secs(6);

/// From one pulse to the next then.
const ROUND: Duration = Duration::from_secs(2);

const BEAT: &str = "pgqueue.beat(";

/// Counts the pulses and the beats that were sent.
#[derive(Default)]
struct Counted {
    pulses: Arc<watch::Sender<u64>>,
    beats: Arc<watch::Sender<u64>>,
}

#[async_trait]
impl Meddle for Counted {
    async fn before<C: Client>(&self, _client: &C, statement: &str) -> Result<(), ClientError> {
        for (name, sent) in [(PULSE, &self.pulses), (BEAT, &self.beats)] {
            if statement.contains(name) {
                sent.send_modify(|sent| *sent += 1);
            }
        }
        Ok(())
    }
}

/// For how many seconds the consumer of the invoices is silent; very many if it was buried.
const SILENT: &str = "select coalesce(max(extract(epoch from clock_timestamp() - o.beat_at)), 1000) \
    from pgqueue.owner o join pgqueue.subscription s on s.id = o.subscription where s.name = 'invoices'";

async fn who_has_something_in_hand_at_every_pulse_and_nothing_when_it_would_beat_is_not_silent<C: Client>() {
    let (database, publisher) = queue::<C>().await;
    let counted = Counted::default();
    let mut pulses = counted.pulses.subscribe();
    let queue = meddled::<C, _>(&database.url(), counted).await;
    // Somebody else in the process, since whom it pulses.
    let mut other = consume(&queue, Subscription::new("other", "orders").with_lease(LEASE)).await;
    quiet(&mut other).await;
    let mut stream = consume(&queue, invoices().with_lease(LEASE)).await;
    pulses.mark_unchanged();
    patiently("a pulse", pulses.changed()).await.unwrap();
    sleep(ROUND / 2).await;
    // From here on it would beat halfway between the pulses.
    assert!(timeout(ROUND / 10, stream.next()).await.is_err());

    let mut in_a_row = 0;
    while in_a_row < 4 {
        patiently("a pulse", pulses.changed()).await.unwrap();
        let next_pulse = Instant::now() + ROUND;
        assert!(timeout(ROUND * 7 / 10, stream.next()).await.is_err());
        publish_number(&publisher, in_a_row).await;
        let delivery = next(&mut stream).await;
        sleep_until(next_pulse - ROUND / 10).await;
        if pulses.has_changed().unwrap() {
            in_a_row = 0; // too late: it had nothing in hand
        } else {
            patiently("a pulse", pulses.clone().changed()).await.unwrap();
            let silent: f64 = database.sql(SILENT).await.unwrap().parse().unwrap();
            assert!(silent < LEASE.as_secs_f64() * 5.0 / 6.0, "silent for {silent} s at the pulse {in_a_row}");
            in_a_row += 1;
        }
        delivery.ok().await.unwrap();
    }
    drop(other);
}

/// Holds the first pulse on its way to the server.
#[derive(Default)]
struct Held {
    is_sent: Arc<Notify>,
    may_go: Arc<Notify>,
    is_done: Arc<Notify>,
}

#[async_trait]
impl Meddle for Held {
    async fn before<C: Client>(&self, _client: &C, statement: &str) -> Result<(), ClientError> {
        if statement.contains(PULSE) {
            self.is_sent.notify_one();
            self.may_go.notified().await;
            self.may_go.notify_one(); // and so may all others
        }
        Ok(())
    }

    async fn after(&self, statement: &str) {
        if statement.contains(PULSE) {
            self.is_done.notify_one();
        }
    }
}

async fn pulse_on_its_way_brings_nobody_back_who_left<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let held = Held::default();
    let (is_sent, may_go, is_done) = (Arc::clone(&held.is_sent), Arc::clone(&held.may_go), Arc::clone(&held.is_done));
    let holding = meddled::<C, _>(&database.url(), held).await;
    // So that waiting for the lease would be seen.
    let wanted = invoices().with_consumers(Consumers::Exclusive).with_lease(PATIENCE * 10);
    let mut stream = consume(&holding, wanted.clone()).await;
    tokio::select! {
        () = patiently("a pulse", is_sent.notified()) => {}
        came = stream.next() => panic!("{came:?}"),
    }
    drop(stream);
    sleep(QUIET).await; // time to leave
    may_go.notify_one();
    patiently("the pulse", is_done.notified()).await;
    patiently("the end", holding.consumers_gone()).await;
    assert_eq!(database.sql("select count(*) from pgqueue.owner").await.unwrap(), "0");

    let mut successor = consume(&queue, wanted).await;
    publish_number(&queue, 1).await;
    assert_eq!(number(&next(&mut successor).await), 1);
}

/// Two that are asked for by one pulse.
const LOW: &str = "00000000-0000-0000-0000-000000000001";
const HIGH: &str = "00000000-0000-0000-0000-000000000002";

/// Somebody's row, as a beat leaves it.
fn beaten(who: &str) -> String {
    format!(
        "insert into pgqueue.owner (id, subscription, lease_ms, beat_at) select '{who}', id, 60000, now() from pgqueue.subscription"
    )
}

/// Beats for both, in this order.
fn pulse(who: [&str; 2], armed: &str) -> String {
    let [first, second] = who;
    format!(
        "select count(*) from pgqueue.pulse('{{{first},{second}}}', array_fill((select id from pgqueue.subscription), '{{2}}'),
         '{{60000,60000}}', '{{t,t}}', '{{f,f}}', '{{{armed},null}}', 30000)"
    )
}

/// Sends a pulse that waits for somebody's row, then something else that waits too, and lets both go on.
async fn both<C: Backend>(database: &Database, row: &str, pulse: &str, other: &str) -> [String; 2] {
    let mut open = C::open(&database.url()).await;
    C::execute(&mut open, &format!("select from pgqueue.owner where id = '{row}' for update")).await;
    let other = async {
        until_sql(database, WAITS, "1").await;
        database.sql(other).await
    };
    let goes = async {
        until_sql(database, WAITS, "2").await;
        C::rollback(open).await;
    };
    let (pulsed, other, ()) = tokio::join!(database.sql(pulse), other, goes);
    [pulsed.unwrap(), other.unwrap()]
}

async fn pulse_and_deletion_do_not_wait_for_each_other<C: Backend>() {
    let (database, queue) = queue::<C>().await;
    queue.insert_subscription(&invoices()).await.unwrap();
    for who in [LOW, HIGH] {
        database.sql(&beaten(who)).await.unwrap();
    }
    let delete = "select pgqueue.delete_subscription('invoices')";
    assert_eq!(both::<C>(&database, HIGH, &pulse([HIGH, LOW], "null"), delete).await[1], "t");
}

async fn pulse_and_claim_do_not_wait_for_each_other<C: Backend>() {
    let (database, queue) = queue::<C>().await;
    queue.insert_subscription(&invoices()).await.unwrap();
    database.sql(&beaten(HIGH)).await.unwrap();
    publish_number(&queue, 1).await;
    let armed = database.sql("select pgqueue.arm((select id from pgqueue.topic), 60000)").await.unwrap();
    let claim = format!(
        "select count(id) from pgqueue.claim((select id from pgqueue.subscription), '{LOW}', gen_random_uuid(), 1, true, true, 0, false, {armed})"
    );
    assert_eq!(both::<C>(&database, HIGH, &pulse([LOW, HIGH], &armed), &claim).await, ["0", "1"]);
}

/// Lets no pulse come to its end.
#[derive(Default)]
struct Stalled;

#[async_trait]
impl Meddle for Stalled {
    async fn before<C: Client>(&self, _client: &C, statement: &str) -> Result<(), ClientError> {
        if statement.contains(PULSE) {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

async fn stalled_pulse_lets_no_idle_consumer_be_buried<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let stalled = meddled::<C, _>(&database.url(), Stalled).await;
    // Over before a pulse is given up.
    let lease = stalled.options().time_limit() / 5;
    let wanted = invoices().with_consumers(Consumers::SingleActive).with_lease(lease);
    let mut active = consume(&stalled, wanted.clone()).await;
    quiet(&mut active).await;
    let mut standby = consume(&queue, wanted).await;
    let since = Instant::now();
    while since.elapsed() < lease * 4 {
        quiet(&mut standby).await;
    }
    publish_number(&queue, 1).await;
    assert_eq!(number(&next(&mut active).await), 1);
}

/// Lets the log never be trimmed to the end.
#[derive(Default)]
struct Trimming {
    is_sent: Arc<Notify>,
}

#[async_trait]
impl Meddle for Trimming {
    async fn before<C: Client>(&self, _client: &C, statement: &str) -> Result<(), ClientError> {
        if statement.contains("pgqueue.trim(") {
            self.is_sent.notify_one();
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

async fn what_is_scheduled_does_not_wait_for_the_log_to_be_trimmed<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let trimming = Trimming::default();
    let is_sent = Arc::clone(&trimming.is_sent);
    let trimming = meddled::<C, _>(&database.url(), trimming).await;
    let mut stream = consume(&trimming, invoices()).await;
    publish_number(&queue, 0).await;
    next(&mut stream).await.ok().await.unwrap();
    tokio::select! {
        () = patiently("the log to be trimmed", is_sent.notified()) => {}
        came = stream.next() => panic!("{came:?}"),
    }
    let since = Instant::now();
    queue.publish_one("orders", NewMessage::new("1").with_delay(ROUND / 4)).await.unwrap();
    next(&mut stream).await.ok().await.unwrap();
    assert!(since.elapsed() < trimming.options().time_limit() * 3 / 4, "after {:?}", since.elapsed());
}

async fn what_is_scheduled_between_two_pulses_comes_within_a_second<C: Client>() {
    let (database, publisher) = queue::<C>().await;
    let counted = Counted::default();
    let mut pulses = counted.pulses.subscribe();
    let queue = meddled::<C, _>(&database.url(), counted).await;
    let mut stream = consume(&queue, invoices()).await;
    for number in 0..3 {
        quiet(&mut stream).await;
        // One has just been, and the next is as far away as can be.
        pulses.mark_unchanged();
        tokio::select! {
            pulsed = patiently("a pulse", pulses.changed()) => pulsed.unwrap(),
            came = stream.next() => panic!("{came:?}"),
        }
        quiet(&mut stream).await;
        let since = Instant::now();
        publisher.publish_one("orders", NewMessage::json(&number).unwrap().with_delay(ROUND / 20)).await.unwrap();
        next(&mut stream).await.ok().await.unwrap();
        assert!(since.elapsed() < ROUND / 20 + Duration::from_secs(1), "after {:?}", since.elapsed());
    }
}

/// As if the claim of the one above had been this consumer's, and the first of all.
fn first_of(who: &str) -> String {
    format!(
        "with claimed as (delete from pgqueue.lease where owner = '{LOW}' returning lease)
         insert into pgqueue.lease overriding system value
         select (jsonb_populate_record(lease, jsonb_build_object('id', 1, 'owner', '{who}'))).* from claimed"
    )
}

async fn what_a_claim_took_whose_answer_was_lost_comes_again_however_late_it_commits<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let counted = Counted::default();
    let mut beats = counted.beats.subscribe();
    let beating = meddled::<C, _>(&database.url(), counted).await;
    let mut stream = consume(&beating, invoices().with_lease(SHORT_LEASE)).await;
    for number in 0..3 {
        publish_number(&queue, number).await;
        next(&mut stream).await.ok().await.unwrap();
    }
    publish_number(&queue, 3).await;
    let held = next(&mut stream).await;
    // Of what is before this, no beat asks any more then.
    let before = *beats.borrow_and_update();
    patiently("beats", beats.wait_for(|beats| *beats >= before + 9)).await.unwrap();
    held.ok().await.unwrap();

    publish_number(&queue, 4).await;
    assert_eq!(database.sql(&claim_of(LOW, 1)).await.unwrap(), "1");
    let who = database.sql(&format!("select id from pgqueue.owner where id <> '{LOW}'")).await.unwrap();
    database.sql(&first_of(&who)).await.unwrap();
    assert_eq!(number(&next(&mut stream).await), 4);
}

async fn answer_that_finds_the_subscription_gone_ends_the_stream_without_a_ring<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let deaf = PgQueue::<Between<C, Deaf>>::connect(&database.url()).await.unwrap();
    let mut stream: ConsumeStream = consume(&deaf, invoices()).await;
    publish_number(&queue, 1).await;
    let delivery = next(&mut stream).await;
    quiet(&mut stream).await; // it sleeps
    queue.delete_subscription("invoices").await.unwrap();
    delivery.ok().await.unwrap_err();
    assert_says(&end(&mut stream).await, ErrorKind::NotFound, &["\"invoices\""]);
}
