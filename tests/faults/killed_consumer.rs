//! A consumer process that is killed takes nothing with it, and nobody waits for long.

use std::{
    collections::HashSet,
    process::Stdio,
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt};
use pgqueue_core::{NewMessage, Publisher, Subscription, Topic, subscribe};
use pgqueue_testserver::Database;
use pgqueue_tokio_postgres::PgQueue;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// How long it may take until everything that a killed process held was handed out again.
const PROMISED: Duration = Duration::from_secs(10);

const MESSAGES: usize = 1000;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_held_is_redelivered_within_seconds() {
    let database = Database::create().await.unwrap();
    let queue = PgQueue::connect(&database.url()).await.unwrap();
    queue.migrate().await.unwrap();
    queue.create_topic(Topic::new("orders")).await.unwrap();
    let subscription = Subscription::new("invoices", "orders");
    queue.insert_subscription(&subscription).await.unwrap();
    let messages = (0..MESSAGES).map(|n| NewMessage::new(n.to_string())).collect();
    queue.publish("orders", messages).await.unwrap();

    let mut process = Command::new(env!("CARGO_BIN_EXE_consumer"))
        .args([&database.url(), "invoices", "orders", "1000", "hold"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let held = tokio_stream(lines).take(MESSAGES).collect::<HashSet<_>>();
    assert_eq!(timeout(PATIENCE, held).await.expect("a process that takes all").len(), MESSAGES);

    process.kill().await.unwrap();
    let killed = Instant::now();
    let stream = subscribe(queue.subscription(subscription)).await.unwrap();
    let redelivered = stream
        .map_ok(async |delivery| {
            let text = String::from_utf8(delivery.message().payload().to_vec()).unwrap();
            let attempt = delivery.message().attempt();
            delivery.ok().await?;
            Ok((text, attempt))
        })
        .try_buffer_unordered(16)
        .take(MESSAGES)
        .try_collect::<Vec<_>>();
    let redelivered = timeout(PATIENCE, redelivered).await.expect("all messages again").unwrap();
    let took = killed.elapsed();

    assert_eq!(redelivered.iter().map(|(text, _)| text).collect::<HashSet<_>>().len(), MESSAGES);
    assert!(redelivered.iter().all(|(_, attempt)| *attempt == 1), "nobody knows which message was to blame");
    assert!(took <= PROMISED, "it took {took:?}");
}

fn tokio_stream(
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
) -> impl futures::Stream<Item = String> {
    futures::stream::unfold(lines, async |mut lines| Some((lines.next_line().await.ok()??, lines)))
}
