//! How do I publish the rows of an outbox table that I have already, in order and exactly once?
//!
//! A service writes earthquakes into an outbox, as part of whatever else its transactions do. Two relays watch that table. Each
//! delivery is a transaction that locks its rows: the relay publishes them in it, and its OK deletes them, so that both commit
//! or neither does. One relay at a time has the first rows; the first of them dies between publishing and OK, and the other
//! takes over. In the end every row must be one message, in the order of the rows:
//!
//! ```text
//! cargo run --release --example outbox_relay
//! cargo run --release --example outbox_relay -- --database-url 'postgres://me@localhost/test?sslmode=disable'
//! ```
//!
//! Without a URL it starts a server of its own that goes with the program. What is in a database that it is given stays as it
//! is: the topic, the subscription and the schema of the outbox have a new name in every run (`outbox_relay_…`), and are deleted
//! at the end unless the program is interrupted. The schema `pgqueue` is made if it is missing, and stays.
//!
//! The last line on stdout is a summary as JSON.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its user")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use clap::Parser;
use futures::{StreamExt, TryStreamExt};
use pgqueue_core::{Ack, BoxError, Job, NewMessage, Order, Subscription, Topic, Worker, subscribe};
use pgqueue_examples::{BUNDLED, database_url, name_of_this_run, read_messages};
use pgqueue_sqlx::{Columns, HeldDelivery, Locking, PendingQuery, PgQueue};
use serde::Serialize;
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};

/// How many rows a relay takes at a time.
const BATCH: usize = 50;

/// After how many batches the first relay dies.
const BATCHES_OF_THE_FIRST: usize = 3;

/// Relays the rows of an outbox table into a topic, in order and exactly once, though a relay dies.
#[derive(Parser)]
struct Options {
    /// The database to work in [default: that of a private server]
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
}

#[derive(Serialize)]
struct Summary {
    rows: usize,
    messages: usize,
    /// Whether the messages came in the order of the rows.
    in_order: bool,
    /// How many rows the first relay had published when it died, and had not answered.
    undone: usize,
    /// How many rows are left in the outbox.
    left: i64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = database_url(Options::parse().database_url).await?;
    let name = name_of_this_run("outbox_relay");
    let queue = PgQueue::connect(&url).await?;
    queue.migrate().await?;
    queue.create_topic(Topic::new(&name)).await?;
    let pool = PgPool::connect(&url).await?;

    let done = run(&name, &queue, &pool).await;
    let cleaned = clean_up(&name, &queue, &pool).await;
    println!("{}", serde_json::to_string(&done?)?);
    cleaned
}

async fn clean_up(name: &str, queue: &PgQueue, pool: &PgPool) -> anyhow::Result<()> {
    queue.delete_topic(name).await?;
    execute(pool, &format!("drop schema if exists {name} cascade")).await
}

async fn run(name: &str, queue: &PgQueue, pool: &PgPool) -> anyhow::Result<Summary> {
    execute(pool, &format!("create schema {name}")).await?;
    let table =
        format!("create table {name}.outbox (id bigint generated always as identity primary key, body jsonb not null)");
    execute(pool, &table).await?;
    // Whoever reads the topic is there before the relays are.
    let readers = Subscription::new(name, name).with_order(Order::Total).with_batch(BATCH);
    let mut reader = subscribe(queue.subscription(readers)).await?;

    let first = tokio::spawn(relay(name.to_owned(), queue.clone(), BATCHES_OF_THE_FIRST));
    let other = tokio::spawn(relay(name.to_owned(), queue.clone(), usize::MAX));
    let written = write(name, pool).await?;

    let mut read: Vec<Value> = Vec::new();
    while read.len() < written.len() {
        let delivery = reader.next().await.context("the reader ended")??;
        read.extend(delivery.decode::<Vec<Value>>()?);
        delivery.ok().await?;
    }
    let undone = first.await??;
    // It would go on for ever; dropping it rolls back what it has in hand, which is nothing by now.
    other.abort();
    let count = format!("select count(*) from {name}.outbox");
    let left = sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(pool).await?;
    Ok(Summary { rows: written.len(), messages: read.len(), in_order: read == written, undone, left })
}

/// Writes all earthquakes into the outbox, each in a transaction of its own, and returns them.
async fn write(name: &str, pool: &PgPool) -> anyhow::Result<Vec<Value>> {
    let messages: Vec<_> = read_messages(BUNDLED).try_collect::<Vec<_>>().await?.into_iter().flatten().collect();
    let mut written = Vec::new();
    for message in messages {
        let body: Value = serde_json::from_slice(message.payload())?;
        let insert = format!("insert into {name}.outbox (body) values ($1::jsonb)");
        sqlx::query(AssertSqlSafe(insert)).bind(body.to_string()).execute(pool).await?;
        written.push(body);
    }
    Ok(written)
}

/// Relays rows until so many batches are done, then dies in the middle of the next. Returns how many rows that had.
async fn relay(name: String, queue: PgQueue, batches: usize) -> anyhow::Result<usize> {
    let pending = PendingQuery::new("outbox", format!("select id, body from {name}.outbox order by id"))
        .with_columns(Columns::new().with_payload("body"))
        .with_locking(Locking::Ordered)
        .with_batch(BATCH)
        .with_ok(format!("delete from {name}.outbox where id = any($1)"))
        .with_poll_interval(Duration::from_millis(100));
    let stream = subscribe(queue.tables().query(pending)).await?;
    let done = Arc::new(AtomicUsize::new(0));
    let (death, dies) = tokio::sync::watch::channel(0);
    let handler = move |job: Job<Vec<Value>>| {
        let (name, queue, done, death) = (name.clone(), queue.clone(), Arc::clone(&done), death.clone());
        async move {
            let (_, delivery) = job.take_delivery()?;
            let mut rows = HeldDelivery::from_delivery(delivery)?;
            let messages: Vec<_> = rows.messages().iter().map(|row| NewMessage::new(row.payload().clone())).collect();
            queue.publish_in(rows.transaction().await?, &name, messages).await?;
            if done.fetch_add(1, Ordering::Relaxed) == batches {
                death.send_replace(rows.messages().len());
                std::future::pending::<()>().await; // until it is dropped, as a process that is killed
            }
            rows.ok().await?;
            Ok::<_, BoxError>(Ack::Ok)
        }
    };
    let mut dies = dies;
    tokio::select! {
        ended = Worker::new(stream, handler).run() => ended?,
        died = dies.changed() => died?,
    }
    let undone = *dies.borrow();
    eprintln!("a relay died between publishing {undone} rows and its OK");
    Ok(undone)
}

async fn execute(pool: &PgPool, sql: &str) -> anyhow::Result<()> {
    sqlx::query(AssertSqlSafe(sql)).execute(pool).await?;
    Ok(())
}
