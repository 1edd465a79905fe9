//! A server that is killed and restarted under load takes nothing with it.

mod audit;

use std::{sync::Arc, time::Duration};

use futures::TryStreamExt;
use pgqueue_core::{
    Backoff, ErrorKind, NewMessage, Order, PublisherExt, RetryConfig, RetryPolicy, Subscription, Topic, subscribe,
};
use pgqueue_postgres::{Client, PgQueue};
use pgqueue_testserver::Server;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use audit::Audit;

const PATIENCE: Duration = Duration::from_secs(90);

/// How often the server is killed, and for how long it works in between.
const KILLS: usize = 4;
const WORK: Duration = Duration::from_millis(1500);

const PUBLISHERS: u64 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn killed_server_loses_nothing_through_tokio_postgres() {
    killed_server_loses_nothing::<pgqueue_tokio_postgres::TokioPostgres>(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_server_loses_nothing_through_sqlx() {
    killed_server_loses_nothing::<pgqueue_sqlx::Sqlx>(&[]).await;
}

/// Claims are not waited for, so a crash forgets some: they are only handed out again.
#[tokio::test(flavor = "multi_thread")]
async fn forgotten_claims_lose_nothing() {
    let slow_writer = [("wal_writer_delay", "10s"), ("wal_writer_flush_after", "100MB")];
    killed_server_loses_nothing::<pgqueue_tokio_postgres::TokioPostgres>(&slow_writer).await;
}

async fn killed_server_loses_nothing<C: Client>(settings: &[(&str, &str)]) {
    let server = settings.iter().fold(Server::builder(), |server, (name, value)| server.with_setting(*name, *value));
    let server = server.start().await.unwrap();
    server.create_database("queue").await.unwrap();
    let queue = PgQueue::<C>::connect(&server.url("queue")).await.unwrap();
    queue.migrate().await.unwrap();
    queue.create_topic(Topic::new("orders")).await.unwrap();

    let audit = Arc::new(Audit::default());
    let mut consumers = JoinSet::new();
    let soon = Backoff::fixed(Duration::from_millis(50));
    let subscription = Subscription::new("invoices", "orders").with_order(Order::ByKey).with_backoff(soon);
    for _ in 0..2 {
        let driver = PgQueue::<C>::connect(&server.url("queue")).await.unwrap().subscription(subscription.clone());
        let patient = Some(RetryPolicy::new(1000, Duration::from_millis(100)).with_cap(Duration::from_millis(500)));
        let retry = RetryConfig::default().with_connection(patient).with_query(patient).with_timeout(patient);
        let stream = subscribe(driver).await.unwrap().with_retry(retry);
        let audit = Arc::clone(&audit);
        consumers.spawn(stream.try_for_each_concurrent(20, move |delivery| {
            let audit = Arc::clone(&audit);
            async move {
                let number = delivery.message().json()?;
                audit.delivered(number);
                if number % 10 == 0 && delivery.message().attempt() == 1 {
                    delivery.requeue().await.ok(); // it comes again, whatever became of the answer
                    return Ok(());
                }
                match delivery.ok().await {
                    Ok(()) => audit.acked(number),
                    Err(error) if error.kind() == ErrorKind::Unknown => audit.perhaps_acked(number),
                    Err(_) => {} // it comes again
                }
                Ok(())
            }
        }));
    }

    let mut publishers = JoinSet::new();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    for publisher in 0..PUBLISHERS {
        let (queue, audit, stopped) = (queue.clone(), Arc::clone(&audit), stopped.clone());
        publishers.spawn(async move {
            for number in (publisher..).step_by(PUBLISHERS as usize) {
                if *stopped.borrow() {
                    break;
                }
                let message = NewMessage::json(&number).unwrap().with_key(format!("customer-{}", number % 50));
                match queue.publish_one("orders", message).await {
                    Ok(_) => audit.published(number),
                    Err(error) if error.kind() == ErrorKind::Unknown => audit.in_doubt(number),
                    Err(_) => sleep(Duration::from_millis(20)).await, // the server is down
                }
            }
        });
    }

    for _ in 0..KILLS {
        sleep(WORK).await;
        server.kill().await.unwrap();
        server.restart().await.unwrap();
    }
    sleep(WORK).await;
    stop.send_replace(true);
    timeout(PATIENCE, publishers.join_all()).await.expect("publishers that stop");

    let all_acked = async {
        while audit.open() > 0 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    if timeout(PATIENCE, all_acked).await.is_err() {
        let left = server.sql("queue", "select count(*), min(l.ids[1]) from pgqueue.lease l").await;
        panic!("{} messages are not acknowledged; leases: {left:?}; consumers: {}", audit.open(), consumers.len());
    }
    assert_eq!(consumers.len(), 2, "a consumer ended");
    audit.check();
}
