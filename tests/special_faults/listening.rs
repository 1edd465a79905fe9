//! The connection that listens is lost in all the ways there are: nobody waits for longer than the poll, and it comes back.

use std::time::{Duration, Instant};

use futures::StreamExt;
use pgqueue_core::Subscription;
use pgqueue_postgres::{Client, Notice, Options, PgQueue};
use pgqueue_tests::END_LISTENERS;
use pgqueue_testserver::Proxy;
use tokio::time::sleep;

use crate::{
    audit::{Audit, patient, work},
    both_clients::on_both_clients,
    common::{consume, invoices, next, patiently, publish_number, publish_numbers, queue, until_sql},
    meddler::Meddler,
};

on_both_clients!(
    what_is_published_while_the_listener_is_gone_comes_within_the_poll,
    who_forgot_to_listen_is_found_out_and_everybody_told,
    consumer_that_stands_still_holds_up_no_notifications,
);

/// How often consumers look by themselves here, and within how much time what nobody rang for comes, with some slack for a busy
/// machine.
const POLL: Duration = Duration::from_secs(1);
const BOUND: Duration = Duration::from_secs(8);

async fn queue_at<C: Client>(url: &str) -> PgQueue<C> {
    let options = Options::new().with_poll_interval(POLL).with_time_limit(Duration::from_secs(3));
    PgQueue::connect(url).await.unwrap().with_options(options).unwrap()
}

async fn what_is_published_while_the_listener_is_gone_comes_within_the_poll<C: Client>() {
    let (database, publisher) = queue::<C>().await;
    let proxy = Proxy::start(database.server().port()).await.unwrap();
    let consumer = queue_at::<C>(&database.url_at(proxy.port())).await;
    let audit = Audit::new();
    let stream = patient(&consumer, Subscription::new("invoices", "orders")).await;
    let worker = work(stream, &audit);
    let mut published = 0;
    for fault in ["terminated", "cut", "half open"] {
        match fault {
            "terminated" => drop(database.sql(END_LISTENERS).await.unwrap()),
            "cut" => proxy.cut().await,
            _ => proxy.black_hole(true),
        }
        publish_numbers(&publisher, published..published + 50).await;
        published += 50;
        match fault {
            "cut" => proxy.restore().await.unwrap(),
            // Its time limit is over, so that the consumer has met it.
            "half open" => {
                sleep(Duration::from_secs(4)).await;
                proxy.black_hole(false);
            }
            _ => {}
        }
        let since = Instant::now();
        audit.until_handled(0..published).await;
        let took = since.elapsed();
        assert!(took < BOUND, "after it was {fault}, it took {took:?}");
    }
    audit.check(0..published, 2);
    assert!(!worker.is_finished(), "the consumer goes on");
}

async fn who_forgot_to_listen_is_found_out_and_everybody_told<C: Client>() {
    let (database, publisher) = queue::<C>().await;
    let meddler = Meddler::start(database.server().port()).await;
    let consumer = queue_at::<C>(&database.url_at(meddler.port)).await;
    let mut stream = consume(&consumer, invoices()).await;
    let mut notices = patiently("a channel", consumer.listener().subscribe("door")).await.unwrap();
    publish_number(&publisher, 1).await;
    next(&mut stream).await.ok().await.unwrap();

    meddler.unlisten();
    patiently("a session that forgets", async {
        while meddler.done() == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    database.sql("select pg_notify('door', 'unheard')").await.unwrap();
    // Whoever forgot does not keep anybody waiting for longer than the poll.
    let since = Instant::now();
    publish_number(&publisher, 2).await;
    next(&mut stream).await.ok().await.unwrap();
    assert!(since.elapsed() < BOUND, "it took {:?}", since.elapsed());
    // And it is found out by the next probe.
    assert_eq!(patiently("word of it", notices.next()).await, Some(Notice::Reconnected));
    database.sql("select pg_notify('door', 'heard')").await.unwrap();
    assert_eq!(patiently("a notice", notices.next()).await, Some(Notice::Notified("heard".into())));
    publish_number(&publisher, 3).await;
    next(&mut stream).await.ok().await.unwrap();
}

/// What the server would say of a listener that does not read.
const STALLED: &str = "select count(*) from pg_stat_activity
    where datname = current_database() and application_name = 'pgqueue' and query ilike '%listen%'
      and (backend_xmin is not null or wait_event = 'ClientWrite')";

async fn consumer_that_stands_still_holds_up_no_notifications<C: Client>() {
    let (database, publisher) = queue::<C>().await;
    let mut stream = consume(&publisher, invoices().with_prefetch(1)).await;
    let mut unread = patiently("a channel", publisher.listener().subscribe("noise")).await.unwrap();
    publish_number(&publisher, 0).await;
    let held = next(&mut stream).await; // and from now on it does nothing
    for _ in 0..20 {
        // Payloads of some hundred bytes, so that they would not fit into what sockets hold.
        database.sql("select pg_notify('noise', repeat('x', 500) || n) from generate_series(1, 5000) n").await.unwrap();
        publish_numbers(&publisher, 0..10).await;
    }
    // All of it is read in a while: a queue that somebody does not read stays as long as it is.
    until_sql(&database, "select pg_notification_queue_usage() < 0.001", "t").await;
    // One that stands still stays there.
    until_sql(&database, STALLED, "0").await;
    assert!(unread.dropped() > 0, "who does not listen loses its own");
    assert!(matches!(patiently("a notice", unread.next()).await, Some(Notice::Notified(_) | Notice::Reconnected)));
    held.ok().await.unwrap();
    for _ in 0..200 {
        next(&mut stream).await.ok().await.unwrap();
    }
}
