//! One delivery at a time, whatever happens to the table meanwhile; and what a wait for it leaves to the handler.

use std::time::Duration;

use futures::StreamExt;
use pgqueue_core::ConsumeStream;
use pgqueue_postgres::{Client, HeldDelivery, Locking, OwnedTransaction, PendingQuery, PgTables, Tracking};
use pgqueue_tests::WAITS;
use pgqueue_testserver::Proxy;
use tokio::time::{Instant, timeout};

use crate::{
    both_clients::on_both_clients,
    common::{next, patiently, quiet, until_sql},
    table::{consume, database, insert, messages, payload, payloads, tables},
};

on_both_clients!(
    row_that_comes_before_what_is_in_hand_waits_for_it,
    what_came_while_others_waited_is_handed_out_at_once,
    handler_of_who_waited_has_the_time_limits_of_its_role,
    waiter_outlasts_a_statement_timeout,
    rows_that_others_hold_are_looked_for_each_second,
    consumer_that_hangs_while_it_counts_stops_nobody_for_long,
    null_is_another_subscription_than_an_empty_text,
);

fn counted<C: Client>(locking: Locking) -> PendingQuery<C::Row> {
    messages::<C>("a", locking).with_tracking(Tracking::new("messages"))
}

/// Looks that wait, once there are so many. They go on only if they are polled.
async fn waiting(database: &pgqueue_testserver::Database, mut stream: ConsumeStream) -> ConsumeStream {
    tokio::select! {
        item = stream.next() => panic!("nothing should be delivered, but there is {item:?}"),
        () = until_sql(database, WAITS, "1") => {}
    }
    stream
}

async fn row_that_comes_before_what_is_in_hand_waits_for_it<C: Client>() {
    for is_counted in [false, true] {
        let database = database().await;
        let tables = tables::<C>(&database).await;
        insert(&database, "a", 0..2).await;
        database.sql("update messages set due_at = now() + interval '1 hour' where payload = '0'").await.unwrap();
        let query = || if is_counted { counted::<C>(Locking::Ordered) } else { messages::<C>("a", Locking::Ordered) };
        let mut first = consume(tables.query(query())).await;
        let held = next(&mut first).await;
        assert_eq!(payload(&held), "1");
        database.sql("update messages set due_at = now() where payload = '0'").await.unwrap();
        let mut second = consume(tables.query(query())).await;
        quiet(&mut second).await;
        held.ok().await.unwrap();
        let held = next(&mut second).await;
        assert_eq!((payload(&held), held.message().attempt()), ("0".to_owned(), 1));
        // The first consumer looks without waiting, as nobody was in its way so far.
        insert(&database, "a", 2..3).await;
        quiet(&mut first).await;
        held.ok().await.unwrap();
        assert_eq!(payload(&next(&mut first).await), "2");
    }
}

async fn what_came_while_others_waited_is_handed_out_at_once<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "a", 0..1).await;
    let rarely = || messages::<C>("a", Locking::Ordered).with_poll_interval(Duration::from_secs(3600));
    let mut first = consume(tables.query(rarely())).await;
    let held = next(&mut first).await;
    let mut second = waiting(&database, consume(tables.query(rarely())).await).await;
    insert(&database, "a", 1..2).await;
    held.ok().await.unwrap();
    let freed = Instant::now();
    assert_eq!(payload(&next(&mut second).await), "1");
    assert!(freed.elapsed() < Duration::from_millis(700), "{:?}", freed.elapsed());
}

async fn handler_of_who_waited_has_the_time_limits_of_its_role<C: Client>() {
    let database = database().await;
    database.sql(&format!("alter database {} set lock_timeout = '7s'", database.name())).await.unwrap();
    for is_counted in [false, true] {
        let tables = tables::<C>(&database).await;
        insert(&database, "a", 0..2).await;
        let query = || if is_counted { counted::<C>(Locking::Ordered) } else { messages::<C>("a", Locking::Ordered) };
        let mut first = consume(tables.query(query())).await;
        let held = next(&mut first).await;
        let mut second = waiting(&database, consume(tables.query(query())).await).await;
        held.ok().await.unwrap();
        let mut held = HeldDelivery::<C>::from_delivery(next(&mut second).await).unwrap();
        let transaction = held.transaction().await.unwrap();
        for (setting, wanted) in [("lock_timeout", "7s"), ("idle_in_transaction_session_timeout", "0")] {
            let shown = transaction.query(&format!("select current_setting('{setting}')"), &[]).await.unwrap();
            assert_eq!(pgqueue_postgres::Row::column(&shown[0], 0), Some(wanted.as_bytes()), "{setting}");
        }
        held.ok().await.unwrap();
    }
}

async fn waiter_outlasts_a_statement_timeout<C: Client>() {
    let database = database().await;
    database.sql(&format!("alter database {} set statement_timeout = '600ms'", database.name())).await.unwrap();
    for is_counted in [false, true] {
        let tables = tables::<C>(&database).await;
        insert(&database, "a", 0..1).await;
        let query = || if is_counted { counted::<C>(Locking::Ordered) } else { messages::<C>("a", Locking::Ordered) };
        let mut first = consume(tables.query(query())).await;
        let held = next(&mut first).await;
        let mut second = consume(tables.query(query())).await;
        for _ in 0..3 {
            quiet(&mut second).await;
        }
        drop((held, first));
        next(&mut second).await.ok().await.unwrap();
    }
}

async fn rows_that_others_hold_are_looked_for_each_second<C: Client>() {
    let database = database().await;
    for is_counted in [false, true] {
        let tables = tables::<C>(&database).await;
        insert(&database, "a", 0..2).await;
        let mut other = tables.client().begin().await.unwrap();
        other.query("select from messages where payload = '1' for update", &[]).await.unwrap();
        let query = if is_counted { counted::<C>(Locking::Ordered) } else { messages::<C>("a", Locking::Ordered) };
        let mut stream = consume(tables.query(query.with_batch(2).with_poll_interval(Duration::from_secs(3600)))).await;
        tokio::select! {
            item = stream.next() => panic!("nothing should be delivered, but there is {item:?}"),
            // A look that waited for one row while it holds the other would be in the way.
            locked = other.query("select from messages where payload = '0' for update", &[]) => drop(locked.unwrap()),
        }
        quiet(&mut stream).await;
        other.rollback().await.unwrap();
        let delivery = timeout(Duration::from_secs(3), stream.next()).await.expect("a look").unwrap().unwrap();
        assert_eq!((payloads(&delivery), delivery.message().attempt()), (vec![0, 1], 1));
        delivery.ok().await.unwrap();
    }
}

/// It is there still, as far as the server can tell, but nothing reaches it any more.
async fn consumer_that_hangs_while_it_counts_stops_nobody_for_long<C: Client>() {
    let database = database().await;
    insert(&database, "a", 0..2).await;
    // So that counting takes a while.
    let slow = || {
        let base = "select id, payload from messages where subscription = $1 and pg_sleep(1) is not null order by id";
        let query = PendingQuery::new("messages", base).with_argument("a").with_tracking(Tracking::new("messages"));
        query.with_ok("delete from messages where id = any($1)")
    };
    let proxy = Proxy::start(database.server().port()).await.unwrap();
    let hangs = PgTables::<C>::connect(&database.url_at(proxy.port())).await.unwrap();
    let mut hangs = consume(hangs.query(slow())).await;
    let guarded = "select count(*) from pg_locks join pg_database on pg_database.oid = database \
                   where datname = current_database() and locktype = 'advisory' and granted";
    tokio::select! {
        item = hangs.next() => panic!("it should be in the midst of counting, but there is {item:?}"),
        () = until_sql(&database, guarded, "1") => {}
    }
    proxy.black_hole(true);
    let mut stream = consume(tables::<C>(&database).await.query(slow())).await;
    next(&mut stream).await.ok().await.unwrap();
}

async fn null_is_another_subscription_than_an_empty_text<C: Client>() {
    let database = database().await;
    let tables = tables::<C>(&database).await;
    insert(&database, "", 0..1).await;
    insert(&database, "b", 1..2).await;
    let query = |subscription: Option<&str>| {
        PendingQuery::new(
            "messages",
            "select id, payload from messages where subscription = coalesce($1, 'b') order by id",
        )
        .with_argument(subscription)
        .with_locking(Locking::Ordered)
        .with_ok("delete from messages where id = any($1)")
    };
    let mut first = consume(tables.query(query(None))).await;
    let mut second = consume(tables.query(query(Some("")))).await;
    let held = (next(&mut first).await, patiently("the other", next(&mut second)).await);
    assert_eq!((payload(&held.0), payload(&held.1)), ("1".to_owned(), "0".to_owned()));
}
