//! The public hub: one connection that listens for everybody in the process.

use std::time::Duration;

use futures::{Stream, StreamExt};
use pgqueue_core::ErrorKind;
use pgqueue_postgres::{Client, Notice, Notices, PgQueue};
use pgqueue_testserver::{Database, Proxy};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    both_clients::on_both_clients,
    common::{PATIENCE, QUIET, assert_says, patiently, until_sql},
};

/// Within how much time a connection that is half open is found out, with some slack for a busy machine.
const FOUND_OUT: Duration = Duration::from_secs(11);

on_both_clients!(
    one_connection_serves_many_channels_and_subscribers,
    what_is_sent_after_subscribing_is_heard,
    notifications_arrive_in_order,
    payloads_that_are_not_json_are_skipped,
    a_slow_subscriber_loses_only_its_own,
    a_channel_can_be_left_and_joined_again,
    a_channel_can_be_left_and_joined_again_while_others_listen,
    joining_channels_loses_nothing_in_flight,
    everybody_hears_of_a_lost_connection,
    a_half_open_connection_is_found_out,
    subscribing_waits_for_the_server_and_for_nobody_else,
    the_connection_closes_when_the_last_subscriber_is_gone,
    unusable_channels_are_invalid,
    channels_are_taken_literally,
);

/// Those that listen; the pool has one more, by which it was tried whether notifications come through.
const CONNECTIONS: &str = "select count(*) from pg_stat_activity
    where datname = current_database() and application_name = 'pgqueue' and query not like '%pg_notify%'";

async fn database<C: Client>() -> (Database, PgQueue<C>) {
    let database = Database::create().await.unwrap();
    let queue = PgQueue::connect(&database.url()).await.unwrap();
    (database, queue)
}

async fn subscribe<C: Client>(queue: &PgQueue<C>, channel: &str) -> Notices {
    patiently("a channel", queue.listener().subscribe(channel)).await.unwrap()
}

async fn notify(database: &Database, channel: &str, payload: &str) {
    database.sql(&format!("select pg_notify('{channel}', '{payload}')")).await.unwrap();
}

async fn heard<T>(notices: &mut (impl Stream<Item = Notice<T>> + Unpin)) -> Notice<T> {
    patiently("a notice", notices.next()).await.expect("a channel that goes on")
}

fn said(payload: &str) -> Notice {
    Notice::Notified(payload.to_owned())
}

async fn one_connection_serves_many_channels_and_subscribers<C: Client>() {
    let (database, queue) = database::<C>().await;
    let mut subscribers = Vec::new();
    for n in 0..20 {
        subscribers.push((n % 10, subscribe(&queue, &format!("channel {}", n % 10)).await));
    }
    assert_eq!(queue.listener().subscribers(), 20);
    assert_eq!(database.sql(CONNECTIONS).await.unwrap(), "1");
    for n in 0..10 {
        notify(&database, &format!("channel {n}"), &n.to_string()).await;
    }
    for (n, subscriber) in &mut subscribers {
        assert_eq!(heard(subscriber).await, said(&n.to_string()));
    }
}

async fn what_is_sent_after_subscribing_is_heard<C: Client>() {
    let (database, queue) = database::<C>().await;
    let mut subscribers = Vec::new();
    for n in 0..30 {
        let channel = format!("channel {n}");
        let mut subscriber = subscribe(&queue, &channel).await;
        notify(&database, &channel, "at once").await;
        assert_eq!(heard(&mut subscriber).await, said("at once"));
        subscribers.push(subscriber);
    }
}

async fn notifications_arrive_in_order<C: Client>() {
    let (database, queue) = database::<C>().await;
    let mut subscriber = subscribe(&queue, "numbers").await;
    database.sql("select pg_notify('numbers', n::text) from generate_series(1, 500) n").await.unwrap();
    for n in 501..520 {
        notify(&database, "numbers", &n.to_string()).await;
    }
    for n in 1..520 {
        assert_eq!(heard(&mut subscriber).await, said(&n.to_string()));
    }
}

async fn payloads_that_are_not_json_are_skipped<C: Client>() {
    let (database, queue) = database::<C>().await;
    let mut numbers = patiently("a channel", queue.listener().subscribe_json::<u32>("numbers")).await.unwrap();
    for payload in ["1", "", "two", "{", "-3", "4"] {
        notify(&database, "numbers", payload).await;
    }
    assert_eq!(heard(&mut numbers).await, Notice::Notified(1));
    assert_eq!(heard(&mut numbers).await, Notice::Notified(4));
}

async fn a_slow_subscriber_loses_only_its_own<C: Client>() {
    let (database, queue) = database::<C>().await;
    let mut slow = subscribe(&queue, "numbers").await;
    let mut fast = subscribe(&queue, "numbers").await;
    for start in [1, 1001, 2001] {
        let thousand = format!("select pg_notify('numbers', n::text) from generate_series({start}, {}) n", start + 999);
        database.sql(&thousand).await.unwrap();
        for n in start..start + 1000 {
            assert_eq!(heard(&mut fast).await, said(&n.to_string()));
        }
    }
    assert_eq!(fast.dropped(), 0);
    // The hub may tell the slow one last.
    notify(&database, "numbers", "last").await;
    assert_eq!(heard(&mut fast).await, said("last"));
    let since = Instant::now();
    while slow.dropped() < 3001 - 1024 {
        assert!(since.elapsed() < PATIENCE, "only {} were dropped", slow.dropped());
        sleep(Duration::from_millis(5)).await;
    }
    for n in 3002 - 1024..=3000 {
        assert_eq!(heard(&mut slow).await, said(&n.to_string()));
    }
    assert_eq!(heard(&mut slow).await, said("last"));
    assert_eq!(slow.dropped(), 3001 - 1024);
}

async fn a_channel_can_be_left_and_joined_again<C: Client>() {
    let (database, queue) = database::<C>().await;
    for n in 0..10 {
        let mut subscriber = subscribe(&queue, "door").await;
        notify(&database, "door", &n.to_string()).await;
        assert_eq!(heard(&mut subscriber).await, said(&n.to_string()));
        drop(subscriber);
    }
}

async fn a_channel_can_be_left_and_joined_again_while_others_listen<C: Client>() {
    let (database, queue) = database::<C>().await;
    let mut stays = subscribe(&queue, "window").await;
    for n in 0..10 {
        let mut subscriber = subscribe(&queue, "door").await;
        notify(&database, "door", &n.to_string()).await;
        assert_eq!(heard(&mut subscriber).await, said(&n.to_string()));
        drop(subscriber);
    }
    // What nobody listens to is not heard by others.
    notify(&database, "door", "nobody").await;
    notify(&database, "window", "draught").await;
    assert_eq!(heard(&mut stays).await, said("draught"));
}

async fn joining_channels_loses_nothing_in_flight<C: Client>() {
    let (database, queue) = database::<C>().await;
    let mut numbers = subscribe(&queue, "numbers").await;
    let one_by_one = database.sql(
        "do $$ begin for n in 1..1000 loop perform pg_notify('numbers', n::text); perform pg_sleep(0.0005); commit; end loop; end $$",
    );
    let join = async {
        for n in 0..40 {
            let channel = format!("channel {n}");
            drop(subscribe(&queue, &channel).await);
        }
    };
    let hear = async {
        for n in 1..=1000 {
            assert_eq!(heard(&mut numbers).await, said(&n.to_string()));
        }
    };
    let (sent, (), ()) = futures::future::join3(one_by_one, join, hear).await;
    sent.unwrap();
    assert_eq!(numbers.dropped(), 0);
}

async fn everybody_hears_of_a_lost_connection<C: Client>() {
    const TERMINATE: &str = "select pg_terminate_backend(pid) from pg_stat_activity \
        where datname = current_database() and application_name = 'pgqueue'";
    let (database, queue) = database::<C>().await;
    let mut subscribers = Vec::new();
    for channel in ["a", "b", "c", "a"] {
        subscribers.push((channel, subscribe(&queue, channel).await));
    }
    for _ in 0..2 {
        database.sql(TERMINATE).await.unwrap();
        for (channel, subscriber) in &mut subscribers {
            assert_eq!(heard(subscriber).await, Notice::Reconnected, "on {channel}");
        }
        for channel in ["a", "b", "c"] {
            notify(&database, channel, channel).await;
        }
        for (channel, subscriber) in &mut subscribers {
            assert_eq!(heard(subscriber).await, said(channel));
        }
    }
    assert_eq!(database.sql(CONNECTIONS).await.unwrap(), "1");
}

async fn a_half_open_connection_is_found_out<C: Client>() {
    let database = Database::create().await.unwrap();
    let proxy = Proxy::start(database.server().port()).await.unwrap();
    let queue = PgQueue::<C>::connect(&database.url_at(proxy.port())).await.unwrap();
    let mut subscriber = subscribe(&queue, "door").await;
    proxy.black_hole(true);
    notify(&database, "door", "unheard").await;
    assert!(timeout(FOUND_OUT, subscriber.next()).await.is_err(), "nothing comes out of a black hole");
    proxy.black_hole(false);
    // On the old connection, which is open again, this would not be the first.
    assert_eq!(heard(&mut subscriber).await, Notice::Reconnected);
    notify(&database, "door", "heard").await;
    assert_eq!(heard(&mut subscriber).await, said("heard"));
}

async fn subscribing_waits_for_the_server_and_for_nobody_else<C: Client>() {
    let database = Database::create().await.unwrap();
    let proxy = Proxy::start(database.server().port()).await.unwrap();
    let queue = PgQueue::<C>::connect(&database.url_at(proxy.port())).await.unwrap();
    let mut before = subscribe(&queue, "before").await;
    proxy.cut().await;
    let late = tokio::spawn({
        let listener = queue.listener().clone();
        async move { listener.subscribe("late").await }
    });
    // Another who does not wait that long leaves nothing behind.
    assert!(timeout(QUIET, queue.listener().subscribe("impatient")).await.is_err(), "there is no server");
    assert_eq!(queue.listener().subscribers(), 2);
    assert!(!late.is_finished());

    proxy.restore().await.unwrap();
    let mut late = patiently("a channel", late).await.unwrap().unwrap();
    assert_eq!(heard(&mut before).await, Notice::Reconnected);
    notify(&database, "late", "heard").await;
    let mut notice = heard(&mut late).await;
    if notice == Notice::Reconnected {
        notice = heard(&mut late).await; // it was there when the connection came back
    }
    assert_eq!(notice, said("heard"));
    notify(&database, "before", "heard").await;
    assert_eq!(heard(&mut before).await, said("heard"));
}

async fn the_connection_closes_when_the_last_subscriber_is_gone<C: Client>() {
    let (database, queue) = database::<C>().await;
    let subscribers = [subscribe(&queue, "a").await, subscribe(&queue, "b").await, subscribe(&queue, "a").await];
    let [first, second, third] = subscribers;
    drop((first, second));
    assert_eq!(database.sql(CONNECTIONS).await.unwrap(), "1");
    drop(third);
    assert_eq!(queue.listener().subscribers(), 0);
    until_sql(&database, CONNECTIONS, "0").await;
    let mut again = subscribe(&queue, "a").await;
    notify(&database, "a", "again").await;
    assert_eq!(heard(&mut again).await, said("again"), "and no word of a lost connection");
}

async fn unusable_channels_are_invalid<C: Client>() {
    let (database, queue) = database::<C>().await;
    for channel in ["", "with a \0", &"x".repeat(64), &"é".repeat(32)] {
        let refused = patiently("a refusal", queue.listener().subscribe(channel)).await.unwrap_err();
        assert_says(&refused, ErrorKind::Invalid, &["channel", "1 to 63 bytes and no NUL"]);
    }
    assert_eq!((queue.listener().subscribers(), database.sql(CONNECTIONS).await.unwrap()), (0, "0".to_owned()));
}

async fn channels_are_taken_literally<C: Client>() {
    let (database, queue) = database::<C>().await;
    let longest = "é".repeat(31);
    for channel in ["UPPER lower", "\"quoted\"", "it''s", "100 % \\n", "🦀", "; unlisten *; --", " ", longest.as_str()]
    {
        let name = channel.replace("''", "'");
        let mut subscriber = subscribe(&queue, &name).await;
        notify(&database, channel, "heard").await;
        assert_eq!(heard(&mut subscriber).await, said("heard"), "on {name}");
        assert_eq!(subscriber.channel(), name);
    }
}
