//! Ways in which other queues lost messages, or let them wait for somebody to publish again.
//!
//! Consumers look by themselves only rarely here, so that no poll hides what nobody was woken for.

use std::{
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, future::join_all};
use pgqueue_core::{ConsumeStream, ErrorKind, Order, Result, Retention, Start, Subscription, Topic, subscribe};
use pgqueue_postgres::{Client, PgQueue};
use pgqueue_testserver::{Proxy, Server};
use pgqueue_tokio_postgres::TokioPostgres;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};

use crate::{
    backend::Backend,
    both_clients::on_both_clients,
    common::{
        QUIET, assert_says, consume, invoices, next, number, patiently, publish_number, publish_numbers, queue, quiet,
        take, until_sql,
    },
    sleeping::{RARELY, rarely_looking},
};

on_both_clients!(
    a_late_subscription_is_served_at_once_while_others_work,
    what_is_published_between_two_runs_of_a_service_is_for_the_second,
    what_is_published_while_nobody_can_listen_comes_when_somebody_can_again,
    an_unrelated_transaction_delays_stable_total_order_and_nothing_else,
    deleting_twice_is_refused_and_harms_nobody,
);

/// Within how much time a message comes, with some slack for a busy machine.
const AT_ONCE: Duration = Duration::from_secs(5);

fn named(name: &str) -> Subscription {
    Subscription::new(name, "orders").with_lease(RARELY)
}

/// Takes a message, which has to come at once.
async fn at_once(stream: &mut ConsumeStream, expected: u64) {
    let began = Instant::now();
    let delivery = next(stream).await;
    assert_eq!(number(&delivery), expected);
    delivery.ok().await.unwrap();
    let took = began.elapsed();
    assert!(took < AT_ONCE, "{expected} took {took:?}");
}

async fn a_late_subscription_is_served_at_once_while_others_work<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let queue = rarely_looking(queue);
    queue.create_topic(Topic::new("orders").with_retention(Retention::everything())).await.unwrap();
    let (stop, stopped) = watch::channel(false);
    let mut others = JoinSet::new();
    for other in 0..3 {
        let own = rarely_looking(PgQueue::<C>::connect(&database.url()).await.unwrap());
        let mut stream = consume(&own, named(&other.to_string())).await;
        others.spawn(async move {
            while let Some(delivery) = stream.next().await {
                delivery.unwrap().ok().await.unwrap();
            }
        });
    }
    let busy = tokio::spawn({
        let queue = queue.clone();
        async move {
            while !*stopped.borrow() {
                publish_number(&queue, 0).await;
            }
        }
    });
    for order in [Order::Unordered, Order::ByKey, Order::Total, Order::StableTotal] {
        let late = named(&order.to_string()).with_order(order);
        let mut stream = consume(&queue, late.clone()).await;
        at_once(&mut stream, 0).await;
        let mut past = consume(&queue, named(&format!("{order} of the past")).with_start(Start::Beginning)).await;
        at_once(&mut past, 0).await;
    }
    stop.send_replace(true);
    patiently("a publisher that stops", busy).await.unwrap();

    // And one that comes when all is quiet, and has nothing to do at first.
    let mut stream = consume(&queue, named("last")).await;
    quiet(&mut stream).await;
    publish_number(&queue, 1).await;
    at_once(&mut stream, 1).await;
}

async fn what_is_published_between_two_runs_of_a_service_is_for_the_second<C: Client>() {
    for (order, dies) in [Order::Unordered, Order::ByKey, Order::Total].into_iter().zip([false, true, true]) {
        let (database, publisher) = queue::<C>().await;
        let subscription = named("invoices").with_order(order);
        let first = rarely_looking(PgQueue::<C>::connect(&database.url()).await.unwrap());
        let consumer = Arc::new(first.subscription(subscription.clone()));
        let mut stream = subscribe(Arc::clone(&consumer)).await.unwrap();
        publish_number(&publisher, 1).await;
        at_once(&mut stream, 1).await;
        quiet(&mut stream).await; // it sleeps, and has said so
        if dies {
            consumer.crash();
        }
        drop((stream, consumer));
        patiently("the end of the first", first.consumers_gone()).await;
        drop(first);
        publish_numbers(&publisher, [2, 3]).await;

        let second = rarely_looking(PgQueue::<C>::connect(&database.url()).await.unwrap());
        let mut stream = consume(&second, subscription).await;
        at_once(&mut stream, 2).await;
        at_once(&mut stream, 3).await;
        quiet(&mut stream).await;
        publish_number(&publisher, 4).await;
        at_once(&mut stream, 4).await;
        quiet(&mut stream).await;
    }
}

async fn what_is_published_while_nobody_can_listen_comes_when_somebody_can_again<C: Client>() {
    let (database, publisher) = queue::<C>().await;
    let proxy = Proxy::start(database.server().port()).await.unwrap();
    let consumer = rarely_looking(PgQueue::<C>::connect(&database.url_at(proxy.port())).await.unwrap());
    let mut stream = subscribe(consumer.subscription(named("invoices"))).await.unwrap();
    quiet(&mut stream).await;
    for round in 1..=2 {
        proxy.cut().await;
        publish_number(&publisher, round).await;
        quiet(&mut stream).await;
        proxy.restore().await.unwrap();
        at_once(&mut stream, round).await;
        quiet(&mut stream).await;
    }
}

async fn an_unrelated_transaction_delays_stable_total_order_and_nothing_else<C: Backend>() {
    // Every database of a server counts, so it is one of its own.
    let server = Server::start().await.unwrap();
    server.create_database("queue").await.unwrap();
    let queue = rarely_looking(PgQueue::<C>::connect(&server.url("queue")).await.unwrap());
    queue.migrate().await.unwrap();
    queue.create_topic(Topic::new("orders")).await.unwrap();
    let mut stable = consume(&queue, named("stable").with_order(Order::StableTotal)).await;
    let mut others = Vec::new();
    for order in [Order::Unordered, Order::ByKey, Order::Total] {
        others.push(consume(&queue, named(&order.to_string()).with_order(order)).await);
    }
    let mut elsewhere = C::open(&server.url("postgres")).await;
    C::execute(&mut elsewhere, "select pg_current_xact_id()").await;
    for number in 1..=2 {
        publish_number(&queue, number).await;
        for other in &mut others {
            at_once(other, number).await;
        }
        quiet(&mut stable).await;
    }
    C::rollback(elsewhere).await;
    // Nobody publishes again.
    at_once(&mut stable, 1).await;
    at_once(&mut stable, 2).await;
}

async fn deleting_twice_is_refused_and_harms_nobody<C: Client>() {
    let (database, queue) = queue::<C>().await;
    let mut bystander = consume(&queue, named("bystander")).await;
    let mut stream = consume(&queue, invoices()).await;
    publish_numbers(&queue, [1, 2, 3]).await;
    let held = take(&mut stream, 2).await;

    let twice = join_all((0..2).map(|_| queue.delete_subscription("invoices"))).await;
    let refused: Vec<_> = twice.into_iter().filter_map(Result::err).collect();
    assert_eq!(refused.len(), 1, "one of two at once deletes it: {refused:?}");
    let again = queue.delete_subscription("invoices").await.unwrap_err();
    for refused in [&refused[0], &again] {
        assert_says(refused, ErrorKind::NotFound, &["\"invoices\" does not exist"]);
    }
    drop((held, stream)); // they go back to nowhere
    for number in 1..=3 {
        at_once(&mut bystander, number).await;
    }

    queue.delete_topic("orders").await.unwrap();
    assert_says(&queue.delete_topic("orders").await.unwrap_err(), ErrorKind::NotFound, &["\"orders\" does not exist"]);
    let gone = queue.delete_subscription("bystander").await.unwrap_err();
    assert_says(&gone, ErrorKind::NotFound, &["\"bystander\" does not exist"]);
    drop(bystander);
    patiently("consumers that are gone", queue.consumers_gone()).await;
    until_sql(&database, "select count(*) from pgqueue.owner", "0").await;
}

/// A process that handles what it gets; each line is a message.
fn process(database: &str, handled: mpsc::UnboundedSender<(usize, String)>, number: usize) -> tokio::process::Child {
    let mut process = Command::new(env!("CARGO_BIN_EXE_consumer"))
        .args([database, "invoices", "orders", "5", "ok"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            handled.send((number, line)).ok();
        }
    });
    process
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_share_a_subscription_and_none_drops_its_part() {
    const PROCESSES: usize = 2;
    let (database, queue) = queue::<TokioPostgres>().await;
    queue.insert_subscription(&invoices()).await.unwrap();
    let (report, mut reports) = mpsc::unbounded_channel();
    let _processes: Vec<_> = (0..PROCESSES).map(|n| process(&database.url(), report.clone(), n)).collect();

    let (mut published, mut handled) = (0, Vec::new());
    let mut took_part = [false; PROCESSES];
    let work = async {
        while took_part.contains(&false) || published < 200 {
            publish_numbers(&queue, published..published + 20).await;
            published += 20;
            while (handled.len() as u64) < published {
                let (process, line) = reports.recv().await.unwrap();
                took_part[process] = true;
                handled.push(line.parse::<u64>().unwrap());
            }
        }
    };
    patiently("all that was published, and both processes", work).await;
    if let Ok(more) = timeout(QUIET, reports.recv()).await {
        panic!("{more:?} came once more");
    }
    handled.sort_unstable();
    assert_eq!(handled, (0..published).collect::<Vec<_>>());
}
