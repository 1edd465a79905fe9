//! How consumers look, wake and answer when something comes between.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::join;
use pgqueue_core::{Ack, ConsumeStream, ErrorKind, NewMessage, Order, Publisher, Start, Subscription, Topic};
use pgqueue_postgres::{Client, ClientError, PgQueue};
use pgqueue_tests::END_LISTENERS;
use pgqueue_testserver::{Database, Server};
use pgqueue_tokio_postgres::TokioPostgres;
use tokio::time::sleep;

use crate::{
    between::{Between, Meddle, meddled},
    both_clients::on_both_clients,
    common::{consume, invoices, next, number, publish_number, publish_numbers, queue, quiet, take},
    sleeping::{AT_ONCE, RARELY, rarely_looking},
};

on_both_clients!(
    failing_claims_ahead_are_not_repeated_at_once,
    answers_of_an_earlier_claim_change_nothing,
    a_reconnection_lets_nobody_oversleep,
    one_of_several_publishers_rings_for_all,
    who_sleeps_for_long_is_armed_once,
    a_lease_whose_claim_is_answered_late_is_kept,
    a_lane_goes_on_when_a_lease_is_lost_and_claimed_again,
    a_lane_hands_out_one_redriven_message_at_a_time,
    who_answers_for_a_lost_lease_spoils_nothing_for_the_next,
    long_run_without_order_is_in_hand_in_pieces,
    pieces_of_a_long_run_have_whole_batches,
    batch_may_be_as_large_as_any,
    answers_to_ranges_leave_exactly_the_rest,
);

/// A lease, and how late a claim is answered: a beat comes every third of the lease.
const LEASE: Duration = Duration::from_secs(3);
const LATE: Duration = Duration::from_millis(2500);

/// A consumer that does nothing by itself for long.
async fn sleepy<C: Client>(queue: PgQueue<C>) -> (PgQueue<C>, ConsumeStream) {
    let queue = rarely_looking(queue);
    let mut stream = consume(&queue, invoices().with_lease(RARELY)).await;
    quiet(&mut stream).await;
    (queue, stream)
}

/// Takes so many, which have to come at once.
async fn at_once(stream: &mut ConsumeStream, count: usize) -> HashSet<u64> {
    let began = Instant::now();
    let mut seen = HashSet::new();
    for _ in 0..count {
        let delivery = next(stream).await;
        seen.insert(number(&delivery));
        delivery.ok().await.unwrap();
    }
    let took = began.elapsed();
    assert!(took < AT_ONCE, "{seen:?} took {took:?}");
    seen
}

/// Switches a client off, as if its server could not be reached, and answers its claims late.
#[derive(Clone, Default)]
struct Switch {
    is_off: Arc<AtomicBool>,
    is_slow: Arc<AtomicBool>,
    /// How many calls there were while it was off.
    refused: Arc<AtomicUsize>,
}

#[async_trait]
impl Meddle for Switch {
    async fn before<C: Client>(&self, _client: &C, _statement: &str) -> Result<(), ClientError> {
        if self.is_off.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(ClientError::Unreachable("switched off".into()));
        }
        Ok(())
    }

    async fn after(&self, statement: &str) {
        if self.is_slow.load(Ordering::SeqCst) && statement.contains("pgqueue.claim(") {
            sleep(LATE).await;
        }
    }
}

/// A queue behind a switch.
async fn switched<C: Client>(database: &Database) -> (PgQueue<Between<C, Switch>>, Switch) {
    let switch = Switch::default();
    (meddled(&database.url(), switch.clone()).await, switch)
}

async fn failing_claims_ahead_are_not_repeated_at_once<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let (switched, switch) = switched::<C>(&database).await;
    queue.insert_subscription(&invoices()).await.unwrap();
    publish_numbers(&queue, 0..40).await;
    let mut stream = consume(&switched, invoices().with_prefetch(10)).await;
    let mut deliveries = take(&mut stream, 4).await;
    switch.is_off.store(true, Ordering::SeqCst);
    deliveries.extend(take(&mut stream, 6).await); // with half of them left it claims ahead
    sleep(Duration::from_millis(300)).await;
    let refused = switch.refused.load(Ordering::SeqCst);
    assert!((1..20).contains(&refused), "it called {refused} times");
    switch.is_off.store(false, Ordering::SeqCst);
    deliveries.extend(take(&mut stream, 30).await);
    let seen: HashSet<_> = deliveries.iter().map(number).collect();
    assert_eq!(seen, (0..40).collect());
}

async fn answers_of_an_earlier_claim_change_nothing<C: Client>() {
    let (database, queue) = queue::<C>().await;
    queue.insert_subscription(&invoices()).await.unwrap();
    publish_number(&queue, 1).await;
    let [first, second] = ["00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"];
    for token in [first, second] {
        let claim = format!("select count(id) from pgqueue.claim(1, '{token}', '{token}', 10, false, true, 0, false)");
        assert_eq!(database.sql(&claim).await.unwrap(), "1");
        if token == first {
            database.sql(&format!("select pgqueue.leave('{token}')")).await.unwrap();
        }
    }
    let settle = format!(
        "select count(*) from pgqueue.lease l,
         pgqueue.settle(1, '{{}}', '{{}}', array[l.id, l.id], array['{first}', '{second}']::uuid[], l.ids || l.ids, '{{1, 1}}', '{{0, 1}}',
                        array[0, 0], array[null, null])"
    );
    assert_eq!(database.sql(&settle).await.unwrap(), "1", "the earlier one is refused");
    let leases = "select string_agg(ids::text || prior::text, ' ') from pgqueue.lease";
    assert_eq!(database.sql(leases).await.unwrap(), "{1}{1}");
}

async fn a_reconnection_lets_nobody_oversleep<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let (queue, mut stream) = sleepy(queue).await;
    assert_eq!(database.sql(END_LISTENERS).await.unwrap(), "1");
    quiet(&mut stream).await; // it has listened again, and sleeps again
    publish_number(&queue, 1).await;
    at_once(&mut stream, 1).await;
}

async fn one_of_several_publishers_rings_for_all<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let (queue, mut stream) = sleepy(queue).await;
    let (first, connection) = tokio_postgres::connect(&database.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    first
        .batch_execute("begin; select pgqueue.publish_batch('orders', array['1'::bytea], v_alone => true)")
        .await
        .unwrap();
    publish_number(&queue, 2).await;
    quiet(&mut stream).await; // the other will wake it
    first.batch_execute("commit").await.unwrap();
    assert_eq!(at_once(&mut stream, 2).await, HashSet::from([1, 2]));
}

async fn who_sleeps_for_long_is_armed_once<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let queue = rarely_looking(queue);
    let mut stream = consume(&queue, invoices().with_lease(Duration::from_secs(1))).await;
    for _ in 0..4 {
        quiet(&mut stream).await; // it beats, and looks each time
    }
    assert_eq!(database.sql("select count(*) from pgqueue.sleeper").await.unwrap(), "1");
    publish_number(&queue, 1).await;
    at_once(&mut stream, 1).await;
}

async fn a_lease_whose_claim_is_answered_late_is_kept<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let subscription = invoices().with_lease(LEASE);
    queue.insert_subscription(&subscription).await.unwrap();
    publish_numbers(&queue, 0..5).await;
    let (slow, switch) = switched::<C>(&database).await;
    switch.is_slow.store(true, Ordering::SeqCst);
    let mut stream = consume(&slow, subscription).await;
    let deliveries = take(&mut stream, 5).await;
    sleep(LEASE).await;
    for delivery in deliveries {
        delivery.ok().await.unwrap();
    }
}

async fn a_lane_goes_on_when_a_lease_is_lost_and_claimed_again<C: Client>() {
    for order in [Order::Total, Order::ByKey] {
        let (_database, queue) = queue::<C>().await;
        let mut stream = consume(&queue, invoices().with_order(order).with_prefetch(1)).await;
        let publish = async |number: u64| {
            let message = NewMessage::json(&number).unwrap().with_key("key");
            queue.publish("orders", vec![message]).await.unwrap();
        };
        publish(1).await;
        let lost = next(&mut stream).await;
        queue.expire_leases("invoices").await.unwrap();
        quiet(&mut stream).await; // it has claimed it again, and waits for the first to be answered
        assert_eq!(lost.ok().await.unwrap_err().kind(), ErrorKind::LeaseLost, "{order}");
        publish(2).await;
        assert_eq!(at_once(&mut stream, 2).await, HashSet::from([1, 2]), "{order}");
    }
}

async fn a_lane_hands_out_one_redriven_message_at_a_time<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let mut stream = consume(&queue, invoices().with_order(Order::Total).with_prefetch(1)).await;
    let ids = publish_numbers(&queue, [1, 2]).await;
    for _ in 0..2 {
        next(&mut stream).await.settle(Ack::reject("dead")).await.unwrap();
    }
    queue.redrive_one("invoices", &ids[1]).await.unwrap();
    let second = next(&mut stream).await;
    // Both stand behind the same messages, and this one is the older.
    queue.redrive_one("invoices", &ids[0]).await.unwrap();
    quiet(&mut stream).await;
    let in_hand = database.sql("select count(*) from pgqueue.lease where owner is not null").await.unwrap();
    assert_eq!(in_hand, "1");
    second.ok().await.unwrap();
    assert_eq!(at_once(&mut stream, 1).await, HashSet::from([1]));
}

async fn who_answers_for_a_lost_lease_spoils_nothing_for_the_next<C: Client>() {
    let (_database, queue) = queue::<C>().await;
    let mut stream = consume(&queue, invoices()).await;
    for round in 0..10 {
        publish_number(&queue, round).await;
        let lost = next(&mut stream).await;
        queue.expire_leases("invoices").await.unwrap();
        let held = next(&mut stream).await;
        // Both go with one statement, as a rule.
        let (lost, held) = join!(lost.ok(), held.ok());
        assert_eq!(lost.unwrap_err().kind(), ErrorKind::LeaseLost, "round {round}");
        held.unwrap();
    }
}

#[tokio::test]
async fn what_a_prepared_transaction_published_comes_when_it_commits() {
    let server = Server::builder().with_setting("max_prepared_transactions", "2").start().await.unwrap();
    server.create_database("prepared").await.unwrap();
    let queue = PgQueue::<TokioPostgres>::connect(&server.url("prepared")).await.unwrap();
    queue.migrate().await.unwrap();
    queue.create_topic(Topic::new("orders")).await.unwrap();
    queue.insert_subscription(&Subscription::new("invoices", "orders")).await.unwrap();
    let publish =
        "begin; select pgqueue.publish_batch('orders', array['1'::bytea], v_ring => false); prepare transaction 'p'";
    server.sql("prepared", publish).await.unwrap();
    let (_queue, mut stream) = sleepy(queue).await;
    server.sql("prepared", "commit prepared 'p'").await.unwrap();
    at_once(&mut stream, 1).await;
}

/// How many messages the leases have, in order.
const PIECES: &str = "select string_agg(pgqueue.count_ids(ids)::text, ' ' order by ids[1]) from pgqueue.lease";

async fn long_run_without_order_is_in_hand_in_pieces<C: Client>() {
    let (database, queue) = queue::<C>().await;
    publish_numbers(&queue, 0..1).await;
    let mut stream = consume(&queue, invoices().with_prefetch(300)).await;
    publish_numbers(&queue, 1..301).await;
    let mut run = take(&mut stream, 300).await;
    assert_eq!(run.iter().map(number).collect::<Vec<_>>(), (1..301).collect::<Vec<_>>());
    assert_eq!(database.sql(PIECES).await.unwrap(), "200 100");
    // Each position is one to start from, wherever its piece begins.
    for at in [0, 199, 200, 299] {
        let name = format!("after {at}");
        let start = Start::After(run[at].message().position().clone());
        queue.insert_subscription(&Subscription::new(&name, "orders").with_start(start)).await.unwrap();
        assert_eq!(queue.stats(&name).await.unwrap().waiting, 299 - at as u64);
    }
    for delivery in run.drain(190..210) {
        delivery.ok().await.unwrap();
    }
    assert_eq!(database.sql(PIECES).await.unwrap(), "190 90");
    let back = run.remove(220);
    let requeued = number(&back);
    back.settle(Ack::requeue_after(Duration::ZERO)).await.unwrap();
    let again = next(&mut stream).await;
    assert_eq!((number(&again), again.message().attempt()), (requeued, 2));
    run.push(again);
    for delivery in run {
        delivery.ok().await.unwrap();
    }
    assert_eq!(database.sql(PIECES).await.unwrap(), "");
    quiet(&mut stream).await;
}

async fn pieces_of_a_long_run_have_whole_batches<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let mut stream = consume(&queue, invoices().with_prefetch(300).with_batch(50)).await;
    publish_numbers(&queue, 0..300).await;
    let batches = take(&mut stream, 6).await;
    assert!(batches.iter().all(|batch| batch.messages().len() == 50));
    assert_eq!(database.sql(PIECES).await.unwrap(), "200 100");
    for batch in batches {
        batch.ok().await.unwrap();
    }
    assert_eq!(database.sql(PIECES).await.unwrap(), "");
}

async fn answers_to_ranges_leave_exactly_the_rest<C: Client>() {
    ranges::<C>(false).await;
    ranges::<C>(true).await;
}

/// Answers to ranges of a lease, whose messages are copied from the log if they `are_kept`.
async fn ranges<C: Client>(are_kept: bool) {
    let (database, queue) = queue::<C>().await;
    queue.insert_subscription(&invoices()).await.unwrap();
    publish_numbers(&queue, 1..11).await;
    let token = "00000000-0000-0000-0000-000000000001";
    let claim = format!("select count(id) from pgqueue.claim(1, '{token}', '{token}', 10, false, true, 0, false)");
    assert_eq!(database.sql(&claim).await.unwrap(), "10");
    if are_kept {
        database.sql("update pgqueue.lease set claimed_at = claimed_at - interval '1 hour'").await.unwrap();
        assert_eq!(database.sql("select pgqueue.keep_stuck()").await.unwrap(), "1");
    }
    // One by one, and in how many numbers.
    let left = "select coalesce(max((select string_agg((id - f)::text, ' ') from unnest(pgqueue.unpacked(ids)) id) || ' in ' || cardinality(ids)), '')
        from pgqueue.lease, (select min(id) - 1 as f from pgqueue.log) f";
    // Gives the same verdict of each of these ids, or up to `last`, and counts what is refused.
    let settle = |ids: &[&str], last: u32, verdict: u8| {
        let (n, ids) = (ids.len(), ids.join(", "));
        format!(
            "select count(*) from pgqueue.lease l, (select min(id) - 1 as f from pgqueue.log) f,
             pgqueue.settle(1, '{{}}', '{{}}', array_fill(l.id, array[{n}]), array_fill('{token}'::uuid, array[{n}]), array[{ids}]::bigint[],
                            array_fill({verdict}, array[{n}]), array_fill(0, array[{n}]), array_fill(0::bigint, array[{n}]),
                            array_fill(null::text, array[{n}]), v_lasts => array_fill(f + {last}, array[{n}]))"
        )
    };
    // What no id says, and what does not end what it is about, ends nothing else.
    assert_eq!(database.sql(&settle(&["null"; 3], 9, 0)).await.unwrap(), "0");
    assert_eq!(database.sql(left).await.unwrap(), "1 2 3 4 5 6 7 8 9 10 in 2");
    assert_eq!(database.sql(&settle(&["f + 1", "f + 1", "f + 3"], 9, 3)).await.unwrap(), "0");
    let each = "select string_agg((n - f)::text, ' ' order by n)
        from pgqueue.lease cross join unnest(pgqueue.unpacked(ids)) n, (select min(id) - 1 as f from pgqueue.log) f";
    assert_eq!(database.sql(each).await.unwrap(), "1 2 3 4 5 6 7 8 9 10");
    database.sql("delete from pgqueue.lease where token is null").await.unwrap();
    database.sql("delete from pgqueue.kept where id in (select f + n from unnest(array[1, 3]) n, (select min(id) - 1 as f from pgqueue.log) f)").await.unwrap();
    for (first, last, rest) in [
        (2, 2, "4 5 6 7 8 9 10 in 2"),
        (5, 6, "4 7 8 9 10 in 5"),
        (11, 20, "4 7 8 9 10 in 5"),
        (4, 2, "7 8 9 10 in 2"),
        (7, 8, "9 10 in 2"),
        // As first and last where what is left was not looked at.
        (9, 9, if are_kept { "10 in 1" } else { "10 in 2" }),
        (10, 1_000_000_000, ""),
    ] {
        let from = format!("f + {first}");
        assert_eq!(database.sql(&settle(&[&from], last, 0)).await.unwrap(), "0", "nothing is refused");
        assert_eq!(database.sql(left).await.unwrap(), rest, "{first} to {last}");
        let copies = rest.split(" in ").next().map_or(0, |ids| ids.split_whitespace().count());
        let copies = if are_kept { copies } else { 0 };
        assert_eq!(database.sql("select count(*) from pgqueue.kept").await.unwrap(), copies.to_string());
    }
}

async fn batch_may_be_as_large_as_any<C: Client>() {
    let (_database, queue) = queue::<C>().await;
    let mut stream = consume(&queue, invoices().with_batch(usize::MAX)).await;
    publish_numbers(&queue, 0..3).await;
    let batch = next(&mut stream).await;
    assert_eq!(batch.messages().len(), 3);
    batch.ok().await.unwrap();
}
