//! What consumers leave behind, what the queue says of itself, and what it deletes.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use pgqueue_core::{
    Ack, Backoff, ErrorKind, MAX_PAYLOAD_BYTES, NewMessage, Order, Publisher, PublisherExt, Subscription, Topic,
    subscribe,
};
use pgqueue_postgres::{Client, Options, PgQueue};
use pgqueue_testserver::{Database, Server};
use tokio::time::timeout;

use crate::{
    backend::Backend,
    both_clients::on_both_clients,
    common::{
        PATIENCE, QUIET, SHORT_LEASE, assert_says, consume, invoices, next, number, patiently, publish_number,
        publish_numbers, queue, quiet, take, until_sql,
    },
};

/// Within how much time others get what a consumer that goes had in advance, with some slack for a busy machine.
const AT_ONCE: Duration = Duration::from_secs(3);

/// Within how much time a message enters that is due: about a second, with some slack for a busy machine.
const WHEN_DUE: Duration = Duration::from_secs(10);

on_both_clients!(
    what_a_dropped_stream_had_in_advance_goes_to_others_at_once,
    consumers_that_go_leave_nothing_behind,
    what_a_crashed_consumer_held_comes_again_by_itself,
    the_last_lease_holds_for_all_consumers,
    altered_options_hold_for_running_consumers,
    stats_count_what_is_there,
    stats_count_what_commits_late,
    stats_count_consumers_that_live,
    stats_count_long_backlogs_up_to_a_limit,
    an_old_transaction_is_named,
    the_log_ends_where_every_subscription_has_passed,
    what_a_stuck_lease_needs_survives_the_log,
    what_was_kept_goes_when_it_is_done,
    large_dead_letters_are_listed_redriven_and_purged,
    scheduled_messages_come_when_they_are_due,
    scheduled_messages_enter_without_a_consumer,
    coalesced_messages_share_commits_and_nothing_else,
    consumers_that_are_gone_left_nothing_behind,
);

async fn ready(database: &Database) {
    until_sql(database, "select count(*) from pgqueue.lease where ready_at is null", "0").await;
}

async fn what_a_dropped_stream_had_in_advance_goes_to_others_at_once<C: Client>() {
    for order in [Order::Unordered, Order::ByKey, Order::Total] {
        let (_database, queue) = queue::<C>().await;
        let subscription = invoices().with_order(order);
        let mut stream = consume(&queue, subscription.clone()).await;
        let keyed = |n: u64| NewMessage::json(&n).unwrap().with_key((n % 3).to_string());
        queue.publish("orders", (0..20).map(keyed).collect()).await.unwrap();
        let first = next(&mut stream).await;
        let mut others = consume(&queue, subscription).await;
        drop(stream);
        first.ok().await.unwrap();
        let dropped = Instant::now();
        let mut seen = HashSet::new();
        for _ in 0..19 {
            let delivery = next(&mut others).await;
            assert_eq!(delivery.message().attempt(), 1, "{order}");
            assert!(seen.insert(number(&delivery)), "{order}");
            delivery.ok().await.unwrap();
        }
        let took = dropped.elapsed();
        assert!(took < AT_ONCE, "{order}: {took:?}");
        quiet(&mut others).await;
    }
}

async fn consumers_that_go_leave_nothing_behind<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let mut streams = Vec::new();
    for order in [Order::Unordered, Order::ByKey, Order::Total] {
        let mut stream = consume(&queue, Subscription::new(order.to_string(), "orders").with_order(order)).await;
        publish_numbers(&queue, 0..10).await;
        next(&mut stream).await.ok().await.unwrap();
        streams.push(stream);
    }
    assert_eq!(database.sql("select count(*) from pgqueue.owner").await.unwrap(), "3");
    drop(streams);
    until_sql(&database, "select count(*) from pgqueue.owner", "0").await;
    assert_eq!(database.sql("select count(*) from pgqueue.lease where owner is not null").await.unwrap(), "0");
    assert_eq!(queue.listener().subscribers(), 0);
    // Whoever armed is swept once nobody can need it.
    database.sql("update pgqueue.sleeper set armed_until = armed_until - interval '1 minute'").await.unwrap();
    queue.maintain().await.unwrap();
    assert_eq!(database.sql("select count(*) from pgqueue.sleeper").await.unwrap(), "0");
    // A consumer that never got anything, and one that was never polled.
    drop(queue.subscription(invoices()));
    drop(consume(&queue, invoices()).await);
    until_sql(&database, "select count(*) from pgqueue.owner", "0").await;
}

async fn what_a_crashed_consumer_held_comes_again_by_itself<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let subscription = invoices().with_lease(SHORT_LEASE);
    let driver = Arc::new(queue.subscription(subscription.clone()));
    let mut stream = subscribe(Arc::clone(&driver)).await.unwrap();
    publish_numbers(&queue, 0..10).await;
    let held = take(&mut stream, 2).await;
    driver.crash();
    drop((held, stream, driver));

    let mut others = consume(&queue, subscription).await;
    let mut seen = HashSet::new();
    for _ in 0..10 {
        let delivery = next(&mut others).await;
        // Nobody knows which message was to blame.
        assert_eq!(delivery.message().attempt(), 1);
        assert!(seen.insert(number(&delivery)));
        delivery.ok().await.unwrap();
    }
    quiet(&mut others).await;
    until_sql(&database, "select count(*) from pgqueue.owner", "1").await;

    // One that was out alone is to blame.
    let driver = Arc::new(queue.subscription(invoices().with_lease(SHORT_LEASE)));
    drop(others);
    until_sql(&database, "select count(*) from pgqueue.owner", "0").await;
    let mut stream = subscribe(Arc::clone(&driver)).await.unwrap();
    publish_number(&queue, 11).await;
    let held = next(&mut stream).await;
    driver.crash();
    drop((held, stream));
    let mut others = consume(&queue, invoices().with_lease(SHORT_LEASE)).await;
    let again = next(&mut others).await;
    assert_eq!((number(&again), again.message().attempt()), (11, 2));
    again.ok().await.unwrap();
}

async fn the_last_lease_holds_for_all_consumers<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let mut first = consume(&queue, invoices().with_lease(Duration::from_millis(900))).await;
    publish_numbers(&queue, [1, 2]).await;
    let deliveries = take(&mut first, 2).await;
    let mut second = consume(&queue, invoices().with_lease(Duration::from_millis(2400))).await;
    publish_number(&queue, 3).await;
    next(&mut second).await.ok().await.unwrap();
    for delivery in deliveries {
        delivery.ok().await.unwrap();
    }
    // Both have looked since.
    let leases = async {
        let leases = "select string_agg(distinct lease_ms::text, ' '), count(*) from pgqueue.owner";
        until_sql(&database, leases, "2400\t2").await;
    };
    tokio::select! {
        () = leases => {}
        item = futures::StreamExt::next(&mut first) => panic!("{item:?}"),
        item = futures::StreamExt::next(&mut second) => panic!("{item:?}"),
    }
    assert_eq!(queue.subscriptions().await.unwrap()[0].lease(), Duration::from_millis(2400));
}

async fn altered_options_hold_for_running_consumers<C: Client>() {
    let (_database, queue) = queue::<C>().await;
    let slow = invoices().with_backoff(Backoff::fixed(Duration::from_secs(3600))).with_prefetch(1);
    let missing = queue.alter_subscription(&slow).await.unwrap_err();
    assert_says(&missing, ErrorKind::NotFound, &["\"invoices\" does not exist"]);
    let mut stream = consume(&queue, slow.clone()).await;
    publish_numbers(&queue, 0..40).await;
    let delivery = next(&mut stream).await;
    assert!(queue.stats("invoices").await.unwrap().in_flight <= 2);
    delivery.requeue().await.unwrap();
    assert_eq!(queue.stats("invoices").await.unwrap().retrying, 1);

    queue.alter_subscription(&invoices().with_prefetch(30)).await.unwrap();
    // The backoff holds from the next answer on, the prefetch from the next look but one.
    next(&mut stream).await.requeue().await.unwrap();
    let mut again = Vec::new();
    while again.is_empty() {
        let delivery = next(&mut stream).await;
        if delivery.message().attempt() == 2 {
            again.push(number(&delivery));
        }
        delivery.ok().await.unwrap();
    }
    assert_ne!(again, [0], "that one still waits for an hour");
    publish_numbers(&queue, 40..80).await;
    let mut held = Vec::new();
    while queue.stats("invoices").await.unwrap().in_flight < 10 {
        held.push(next(&mut stream).await);
    }
    let conflict = queue.alter_subscription(&invoices().with_order(Order::Total)).await.unwrap_err();
    assert_says(&conflict, ErrorKind::Conflict, &["its order is unordered, not total"]);
}

async fn stats_count_what_is_there<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let missing = queue.stats("invoices").await.unwrap_err();
    assert_says(&missing, ErrorKind::NotFound, &["\"invoices\" does not exist"]);
    for order in [Order::Unordered, Order::ByKey] {
        let name = order.to_string();
        let slow = Backoff::fixed(Duration::from_secs(3600));
        let subscription = Subscription::new(&name, "orders").with_order(order).with_backoff(slow).with_prefetch(1);
        queue.insert_subscription(&subscription).await.unwrap();
        let stats = queue.stats(&name).await.unwrap();
        assert_eq!((stats.waiting, stats.waiting_is_exact, stats.oldest, stats.consumers), (0, true, None, 0));
        assert_eq!((stats.in_flight, stats.retrying, stats.dead), (0, 0, 0));

        let keyed = |n: u64| NewMessage::json(&n).unwrap().with_key(n.to_string());
        queue.publish("orders", (0..9).map(keyed).collect()).await.unwrap();
        let stats = queue.stats(&name).await.unwrap();
        assert_eq!((&stats.name, stats.waiting, stats.waiting_is_exact), (&name, 9, true));
        assert!(stats.oldest.is_some_and(|oldest| oldest < PATIENCE), "{stats:?}");

        let mut stream = consume(&queue, subscription).await;
        next(&mut stream).await.ok().await.unwrap();
        next(&mut stream).await.requeue().await.unwrap();
        next(&mut stream).await.settle(Ack::reject("no")).await.unwrap();
        let held = next(&mut stream).await;
        let stats = queue.stats(&name).await.unwrap();
        assert_eq!((stats.retrying, stats.dead, stats.consumers), (1, 1, 1), "{stats:?}");
        // One may be taken in advance.
        assert_eq!(stats.in_flight + stats.waiting, 6, "{stats:?}");
        assert!((1..=2).contains(&stats.in_flight), "{stats:?}");
        assert!(stats.oldest.is_some(), "{stats:?}");
        drop(stream);
        held.ok().await.unwrap();
        until_sql(&database, "select count(*) from pgqueue.owner", "0").await;
        let stats = queue.stats(&name).await.unwrap();
        assert_eq!((stats.in_flight, stats.consumers, stats.dead), (0, 0, 1), "{stats:?}");
        assert_eq!(stats.waiting + stats.retrying, 6, "{stats:?}");
        queue.delete_subscription(&name).await.unwrap();
    }
}

async fn stats_count_what_commits_late<C: Backend>() {
    let (database, queue) = queue::<C>().await;
    let mut stream = consume(&queue, invoices()).await;
    let mut transaction = C::open(&database.url()).await;
    queue.publish_in(&mut transaction, "orders", vec![NewMessage::new("1")]).await.unwrap();
    publish_number(&queue, 2).await;
    next(&mut stream).await.ok().await.unwrap();
    drop(stream);
    until_sql(&database, "select count(*) from pgqueue.owner", "0").await;
    C::commit(transaction).await;
    let stats = queue.stats("invoices").await.unwrap();
    assert_eq!((stats.waiting, stats.oldest.is_some()), (1, true), "it was never handed out");
}

async fn stats_count_consumers_that_live<C: Client>() {
    let (_database, queue) = queue::<C>().await;
    let consumer = Arc::new(queue.subscription(invoices().with_lease(SHORT_LEASE)));
    let mut stream = subscribe(Arc::clone(&consumer)).await.unwrap();
    publish_number(&queue, 1).await;
    let _held = next(&mut stream).await;
    let consumers = async || queue.stats("invoices").await.unwrap().consumers;
    assert_eq!(consumers().await, 1);
    consumer.crash(); // and nobody is there who would find out
    patiently("no living consumer", async { while consumers().await > 0 {} }).await;
    assert_eq!(queue.stats("invoices").await.unwrap().in_flight, 1);
}

async fn stats_count_long_backlogs_up_to_a_limit<C: Client>() {
    let (database, queue) = queue::<C>().await;
    queue.insert_subscription(&invoices()).await.unwrap();
    let publish =
        |count| format!("select pgqueue.publish_batch('orders', array_fill('x'::bytea, array[{count}])) is null");
    database.sql(&publish(10_000)).await.unwrap();
    let stats = queue.stats("invoices").await.unwrap();
    assert_eq!((stats.waiting, stats.waiting_is_exact), (10_000, true));
    database.sql(&publish(1)).await.unwrap();
    let stats = queue.stats("invoices").await.unwrap();
    assert_eq!((stats.waiting, stats.waiting_is_exact), (10_000, false));
}

async fn an_old_transaction_is_named<C: Backend>() {
    // The horizon is that of the whole server, and PostgreSQL's own workers hold it too.
    let server = Server::builder().with_setting("autovacuum", "off").with_setting("wal_level", "logical");
    let server = server.start().await.unwrap();
    let queue = PgQueue::<C>::connect(&server.url("postgres")).await.unwrap();
    queue.migrate().await.unwrap();
    queue.create_topic(Topic::new("orders")).await.unwrap();
    // It holds what is deleted of catalogs, not of tables.
    server.sql("postgres", "select pg_create_logical_replication_slot('decoded', 'pgoutput')").await.unwrap();
    assert_eq!(queue.horizon_holder().await.unwrap(), None);
    let mut transaction = C::open(&server.url("postgres")).await;
    C::execute(&mut transaction, "set local application_name = 'forgotten'; select pg_current_xact_id()").await;
    publish_numbers(&queue, [1]).await;
    let holder = queue.horizon_holder().await.unwrap().expect("somebody");
    assert_eq!(holder.what, "session");
    assert!(holder.who.contains("forgotten") && holder.who.contains("idle in transaction"), "{holder:?}");
    assert!(holder.age > 0 && holder.since.is_some(), "{holder:?}");
    C::rollback(transaction).await;
}

async fn the_log_ends_where_every_subscription_has_passed<C: Client>() {
    const LOG: &str = "select count(*) from pgqueue.log";
    let (database, queue) = queue::<C>().await;
    queue.insert_subscription(&Subscription::new("idle", "orders")).await.unwrap();
    let mut by_key = consume(&queue, invoices().with_order(Order::ByKey)).await;
    let keyed = |n: u64| NewMessage::json(&n).unwrap().with_key((n % 3).to_string());
    queue.publish("orders", (0..20).map(keyed).collect()).await.unwrap();
    for _ in 0..20 {
        next(&mut by_key).await.ok().await.unwrap();
    }
    for _ in 0..3 {
        queue.maintain().await.unwrap();
    }
    assert_eq!(database.sql(LOG).await.unwrap(), "20", "one has not seen them");

    let mut idle = consume(&queue, Subscription::new("idle", "orders")).await;
    let held = next(&mut idle).await;
    for _ in 1..19 {
        next(&mut idle).await.ok().await.unwrap();
    }
    let last = next(&mut idle).await;
    assert_eq!((number(&held), number(&last)), (0, 19));
    queue.maintain().await.unwrap();
    assert_eq!(database.sql(LOG).await.unwrap(), "20", "the first is not done");
    held.ok().await.unwrap();
    last.requeue().await.unwrap();
    // Consumers keep house by themselves.
    tokio::select! {
        () = until_sql(&database, LOG, "1") => {}
        item = futures::StreamExt::next(&mut by_key) => panic!("{item:?}"),
    }
    let last = next(&mut idle).await;
    assert_eq!((number(&last), last.message().attempt()), (19, 2));
    last.ok().await.unwrap();
    until_sql(&database, LOG, "0").await;
    publish_number(&queue, 20).await;
    assert_eq!(number(&next(&mut by_key).await), 20);
    assert_eq!(number(&next(&mut idle).await), 20);
}

/// Lets a stuck lease be noticed, and the log go on without it.
async fn pass_a_minute<C: Client>(database: &Database, queue: &PgQueue<C>) {
    database.sql("update pgqueue.lease set claimed_at = claimed_at - interval '2 minutes'").await.unwrap();
    queue.maintain().await.unwrap();
    until_sql(database, "select count(*) from pgqueue.log", "0").await;
}

async fn what_a_stuck_lease_needs_survives_the_log<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let mut stream = consume(&queue, invoices()).await;
    let message = NewMessage::new("stuck").with_key("k").with_kind("kind").with_tag("t").with_header("h", "v");
    let id = queue.publish_one("orders", message.clone()).await.unwrap();
    let held = next(&mut stream).await;
    pass_a_minute(&database, &queue).await;
    let stats = queue.stats("invoices").await.unwrap();
    assert_eq!((stats.in_flight, stats.oldest.is_some()), (1, true), "it is not done: {stats:?}");
    held.requeue().await.unwrap();
    let again = next(&mut stream).await;
    let received = again.message();
    assert_eq!((received.id(), received.attempt(), received.payload()), (&id, 2, message.payload()));
    assert_eq!((received.key(), received.kind()), (message.key(), message.kind()));
    assert_eq!((received.tags(), received.headers()), (message.tags(), message.headers()));

    // Also through an expired lease, and to the dead letters.
    queue.expire_leases("invoices").await.unwrap();
    again.ok().await.unwrap_err();
    let again = next(&mut stream).await;
    assert_eq!(again.message().payload(), message.payload());
    again.settle(Ack::reject("no")).await.unwrap();
    let letters = queue.dead_letters("invoices").await.unwrap();
    assert_eq!((letters.len(), letters[0].message.id(), letters[0].message.payload()), (1, &id, message.payload()));
}

async fn what_was_kept_goes_when_it_is_done<C: Backend>() {
    const KEPT: &str = "select count(*) from pgqueue.kept";
    let (database, queue) = queue::<C>().await;
    let mut stream = consume(&queue, invoices()).await;
    // Answered alone.
    publish_number(&queue, 1).await;
    let held = next(&mut stream).await;
    pass_a_minute(&database, &queue).await;
    assert_eq!(database.sql(KEPT).await.unwrap(), "1");
    held.ok().await.unwrap();
    let after_ok = database.sql(KEPT).await.unwrap();
    // In a transaction.
    publish_number(&queue, 2).await;
    let held = next(&mut stream).await;
    pass_a_minute(&database, &queue).await;
    let mut transaction = C::open(&database.url()).await;
    queue.ok_in(held, &mut transaction).await.unwrap();
    C::commit(transaction).await;
    until_sql(&database, "select count(*) from pgqueue.lease", "0").await;
    let after_ok_in = database.sql(KEPT).await.unwrap();
    // After a second life.
    publish_number(&queue, 3).await;
    next(&mut stream).await.settle(Ack::reject("no")).await.unwrap();
    queue.redrive("invoices").await.unwrap();
    next(&mut stream).await.ok().await.unwrap();
    let after_redrive = database.sql(KEPT).await.unwrap();
    assert_eq!((&*after_ok, &*after_ok_in, &*after_redrive), ("0", "0", "0"), "copies that nobody needs");
}

async fn large_dead_letters_are_listed_redriven_and_purged<C: Client>() {
    const LETTERS: u64 = 4;
    let (database, queue) = queue::<C>().await;
    let mut stream = consume(&queue, invoices().with_backoff(Backoff::default().with_max_attempts(1))).await;
    let payload = |n: u64| vec![n as u8; MAX_PAYLOAD_BYTES / 4];
    let mut ids = Vec::new();
    for n in 0..LETTERS {
        ids.push(queue.publish_one("orders", NewMessage::new(payload(n))).await.unwrap());
        next(&mut stream).await.requeue().await.unwrap();
    }
    let letters = queue.dead_letters("invoices").await.unwrap();
    assert!(letters.iter().map(|letter| letter.message.id()).eq(&ids));
    assert!(letters.iter().zip(0..).all(|(letter, n)| letter.message.payload() == &payload(n)));
    assert_eq!((letters[0].message.attempt(), &*letters[0].reason), (1, "given up after 1 attempts"));

    queue.redrive_one("invoices", &ids[2]).await.unwrap();
    let missing = queue.redrive_one("invoices", &ids[2]).await.unwrap_err();
    assert_says(&missing, ErrorKind::NotFound, &[&format!("message {} ", ids[2]), "\"invoices\""]);
    let redriven = next(&mut stream).await;
    assert_eq!((redriven.message().id(), redriven.message().attempt()), (&ids[2], 1));
    assert!(redriven.message().payload() == &payload(2));
    redriven.requeue().await.unwrap();
    assert_eq!(queue.stats("invoices").await.unwrap().dead, LETTERS);

    assert_eq!(queue.redrive("invoices").await.unwrap(), 4);
    assert_eq!(queue.redrive("invoices").await.unwrap(), 0);
    let mut redriven = HashSet::new();
    for _ in 0..LETTERS {
        let delivery = next(&mut stream).await;
        assert!(redriven.insert(delivery.message().id().clone()));
        delivery.settle(Ack::reject("again")).await.unwrap();
    }
    assert_eq!(queue.purge_dead_letters("invoices").await.unwrap(), 4);
    assert_eq!(queue.purge_dead_letters("invoices").await.unwrap(), 0);
    assert_eq!(queue.dead_letters("invoices").await.unwrap().len(), 0);
    ready(&database).await;
    until_sql(&database, "select (select count(*) from pgqueue.kept) + (select count(*) from pgqueue.log)", "0").await;
    for missing in [
        queue.dead_letters("nobody").await.unwrap_err(),
        queue.redrive("nobody").await.unwrap_err(),
        queue.redrive_one("nobody", &ids[0]).await.unwrap_err(),
        queue.purge_dead_letters("nobody").await.unwrap_err(),
    ] {
        assert_says(&missing, ErrorKind::NotFound, &["\"nobody\" does not exist"]);
    }
}

async fn scheduled_messages_come_when_they_are_due<C: Client>() {
    const DELAY: Duration = Duration::from_millis(600);
    let (database, queue) = queue::<C>().await;
    let mut stream = consume(&queue, invoices()).await;
    let scheduled = Instant::now();
    let later = NewMessage::json(&2).unwrap().with_delay(2 * DELAY).with_key("k").with_tag("t").with_header("h", "v");
    let soon = NewMessage::json(&1).unwrap().with_delay(DELAY);
    let never = NewMessage::json(&3).unwrap().with_delay(Duration::MAX);
    let past = NewMessage::json(&0).unwrap().with_delivery_time(std::time::SystemTime::UNIX_EPOCH);
    let ids = queue.publish("orders", vec![later, soon, never, past]).await.unwrap();
    for (expected, due, id) in [(0, Duration::ZERO, 3), (1, DELAY, 1), (2, 2 * DELAY, 0)] {
        let delivery = next(&mut stream).await;
        let late = scheduled.elapsed().checked_sub(due).expect("not before it is due");
        assert!(late < WHEN_DUE, "{late:?}");
        assert_eq!((number(&delivery), delivery.message().id()), (expected, &ids[id]));
        if expected == 2 {
            let message = delivery.message();
            assert_eq!((message.key(), message.tags().len(), message.headers().len()), (Some("k"), 1, 1));
        }
        delivery.ok().await.unwrap();
    }
    assert_eq!(database.sql("select count(*) from pgqueue.scheduled").await.unwrap(), "1");
    queue.delete_topic("orders").await.unwrap();
    assert_eq!(database.sql("select count(*) from pgqueue.scheduled").await.unwrap(), "0");
}

async fn scheduled_messages_enter_without_a_consumer<C: Client>() {
    let (database, queue) = queue::<C>().await;
    queue.insert_subscription(&invoices()).await.unwrap();
    // More than one round takes.
    let messages = (0..501).map(|n| NewMessage::json(&n).unwrap().with_delay(Duration::from_millis(1)));
    queue.publish("orders", messages.collect()).await.unwrap();
    until_sql(&database, "select bool_and(due_at < clock_timestamp()) from pgqueue.scheduled", "t").await;
    assert_eq!(queue.stats("invoices").await.unwrap().waiting, 0);
    queue.maintain().await.unwrap();
    assert_eq!(queue.stats("invoices").await.unwrap().waiting, 500);
    queue.maintain().await.unwrap();
    assert_eq!(queue.stats("invoices").await.unwrap().waiting, 501);
    assert_eq!(database.sql("select count(*) from pgqueue.scheduled").await.unwrap(), "0");
}

async fn coalesced_messages_share_commits_and_nothing_else<C: Client>() {
    const PUBLISHERS: usize = 64;
    let (database, queue) = queue::<C>().await;
    let queue = queue.with_options(Options::new().with_coalescing(true)).unwrap();
    queue.create_topic(Topic::new("returns")).await.unwrap();
    let mut stream = consume(&queue, invoices()).await;
    let published = join_all((0..PUBLISHERS).map(|n| {
        let queue = &queue;
        async move {
            let message = NewMessage::json(&n).unwrap();
            match n {
                10 => queue.publish_one("orders", message.with_key("\0")).await,
                20 => queue.publish_one("nowhere", message).await,
                30 => queue.publish_one("returns", message).await,
                40 => queue.publish_one("orders", message.with_dedup_id("once")).await,
                _ => queue.publish_one("orders", message).await,
            }
        }
    }));
    let published = patiently("all publishers", published).await;
    assert_says(published[20].as_ref().unwrap_err(), ErrorKind::NotFound, &["\"nowhere\" does not exist"]);
    assert_says(published[10].as_ref().unwrap_err(), ErrorKind::Invalid, &["key", "NUL"]);
    let mut wanted: HashMap<_, _> = published.into_iter().zip(0..).filter_map(|(id, n)| Some((id.ok()?, n))).collect();
    assert_eq!(wanted.len(), PUBLISHERS - 2, "each has an id of its own");
    wanted.retain(|_, n| *n != 30);

    // The id that each got is that of its own message.
    let mut delivered = HashMap::new();
    let mut held = Vec::new();
    while delivered.len() < wanted.len() {
        let delivery = next(&mut stream).await;
        delivered.insert(delivery.message().id().clone(), number(&delivery));
        held.push(delivery);
    }
    assert_eq!(delivered, wanted);
    let commits: usize = database.sql("select count(distinct xact) from pgqueue.log").await.unwrap().parse().unwrap();
    assert!(commits <= PUBLISHERS / 4, "{commits} commits");
    // Nobody waits for others who gave up.
    let gave_up = timeout(Duration::ZERO, publish_numbers(&queue, [100])).await;
    drop(gave_up);
    publish_number(&queue, 101).await;
}

async fn consumers_that_are_gone_left_nothing_behind<C: Client>() {
    for order in [Order::Unordered, Order::ByKey, Order::Total] {
        let (database, queue) = queue::<C>().await;
        patiently("no consumers", queue.consumers_gone()).await;
        let mut stream = consume(&queue, invoices().with_order(order)).await;
        queue.publish("orders", (0..20).map(|n: u64| NewMessage::json(&n).unwrap()).collect()).await.unwrap();
        let first = next(&mut stream).await;
        let handle = queue.clone().with_options(Options::new().with_ringing(false)).unwrap();
        drop(stream);
        assert!(timeout(QUIET, handle.consumers_gone()).await.is_err(), "{order}: a delivery is out");
        first.ok().await.unwrap();
        patiently("the consumer to leave", handle.consumers_gone()).await;
        let left = "select (select count(*) from pgqueue.owner) + (select count(*) from pgqueue.lease where owner is not null)";
        assert_eq!(database.sql(left).await.unwrap(), "0", "{order}");
        let stats = queue.stats("invoices").await.unwrap();
        assert_eq!((stats.waiting + stats.retrying, stats.in_flight), (19, 0), "{order}");
    }
}
