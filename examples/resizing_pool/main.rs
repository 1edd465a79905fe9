//! How do several workers share a subscription, how do I change their number, and what happens when one crashes?
//!
//! A pool handles a week of earthquakes, at first with one worker, which is too slow, then with four, and in the end with two.
//! Half-way one of them crashes on purpose, after it has handled a message and before it has answered: the pool starts
//! another in its place, and that message comes again. The audit at the end finds that every message was handled, and only
//! that one twice:
//!
//! ```text
//! cargo run --release --example resizing_pool
//! cargo run --release --example resizing_pool -- --driver tokio-postgres
//! cargo run --release --example resizing_pool -- --driver sqlx --database-url 'postgres://me@localhost/test?sslmode=disable'
//! ```
//!
//! On PostgreSQL it works in the database that it is given, or in a server of its own that goes with the program. What is in
//! the database stays as it is: topic and subscription have a new name in every run (`resizing_pool_…`), and are deleted at
//! the end unless the program is interrupted. The schema `pgqueue` is made if it is missing, and stays.
//!
//! What people read goes to stderr; the last line on stdout is the audit as JSON. The exit code is 1 if it is not as above.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its user")]

mod audit;
mod ledger;

use std::{future::pending, process::ExitCode, sync::Arc, time::Duration};

use anyhow::bail;
use clap::{Parser, value_parser};
use pgqueue_core::{
    Ack, BoxError, ConsumeStream, Error, ErrorKind, Job, NewMessage, PoolStop, Result, Subscription, Topic, Worker,
    WorkerPool,
};
use pgqueue_examples::{Driver, Earthquake, Queue, bundled_messages, name_of_this_run};
use tokio::{sync::Notify, time::sleep};

use crate::{
    audit::Audit,
    ledger::{Ended, Ledger},
};

/// How often it looks how far the workers are.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Handles earthquakes in a pool that is resized, and survives a crash.
#[derive(Parser)]
struct Options {
    /// What keeps the messages
    #[arg(long, value_enum, default_value_t = Driver::Memory)]
    driver: Driver,

    /// The database to work in, for a driver on PostgreSQL [default: that of a private server]
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,

    /// How many messages there are, at most 1,707; the fewer, the less there is to see
    #[arg(long, value_name = "N", default_value_t = 1707, value_parser = value_parser!(u32).range(8..=1707))]
    messages: u32,

    /// How long each takes, in milliseconds
    #[arg(long, value_name = "M", default_value_t = 2)]
    handle_ms: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let Options { driver, database_url, messages, handle_ms } = Options::parse();
    let mut events = bundled_messages().await?;
    events.truncate(messages as usize);

    let name = name_of_this_run("resizing_pool");
    let queue: Arc<dyn Queue> = driver.open(database_url, Topic::new(&name)).await?.into();

    let done = run(&queue, &name, events, Duration::from_millis(handle_ms)).await;
    let deleted = queue.delete_topic(&name).await;
    let audit = done?;
    println!("{}", serde_json::to_string(&audit)?);
    deleted?;
    if audit.is_good() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("the audit failed");
    Ok(ExitCode::FAILURE)
}

async fn run(queue: &Arc<dyn Queue>, name: &str, messages: Vec<NewMessage>, time: Duration) -> anyhow::Result<Audit> {
    let total = messages.len();
    let ledger = Arc::new(Ledger::default());

    // One more consumer of the subscription for every worker that the pool starts, and what runs over it.
    let driver = {
        let (queue, subscription) = (Arc::clone(queue), Subscription::new(name, name));
        move || queue.consumer(subscription.clone())
    };
    let worker = {
        let ledger = Arc::clone(&ledger);
        move |stream| work(stream, Arc::clone(&ledger), time, total / 2)
    };
    let pool = WorkerPool::new(driver, worker);
    pool.start().await?;
    let published = queue.publish(name, messages).await?;

    let resizing = async {
        until_handled(total / 4, &ledger, queue, name).await?;
        resize(&pool, 4, &ledger)?;
        until_handled(total / 4 * 3, &ledger, queue, name).await?;
        until_restarted(&ledger).await;
        resize(&pool, 2, &ledger)?;
        until_handled(usize::MAX, &ledger, queue, name).await
    };
    tokio::select! {
        done = resizing => done?,
        ended = pool.wait() => {
            ended?;
            bail!("the pool has ended, and nobody asked it to");
        }
    }
    pool.stop().await?;

    let unsettled = queue.unsettled(name).await?;
    Ok(Audit::new(&published, &ledger.book(), unsettled, pool.status().crashes))
}

fn resize(pool: &WorkerPool, workers: usize, ledger: &Ledger) -> Result<()> {
    eprintln!("{} handled; from now on {workers} workers", ledger.entries());
    pool.resize(workers)
}

/// What each worker of the pool does until it is asked to stop: one message at a time. The one that makes entry number
/// `crash_at` of the ledger crashes.
async fn work(stream: ConsumeStream<PoolStop>, ledger: Arc<Ledger>, time: Duration, crash_at: usize) -> Result<()> {
    let number = ledger.start_worker();
    eprintln!("worker {number} starts");
    let crash = Notify::new();
    let handler = async |job: Job<Earthquake>| {
        sleep(time).await;
        if ledger.enter(number, job.message().id()) == crash_at {
            ledger.book().in_hand = Some(job.message().id().clone());
            crash.notify_one();
            pending::<()>().await; // the answer that is never given
        }
        Ok::<_, BoxError>(Ack::Ok)
    };
    tokio::select! {
        ended = Worker::new(stream, handler).with_concurrency(1).run() => {
            let handled = ledger.end_worker(number, Ended::Stopped);
            eprintln!("worker {number} ends after {handled} messages");
            ended
        }
        () = crash.notified() => {
            let handled = ledger.end_worker(number, Ended::Crashed);
            eprintln!("worker {number} crashes on purpose after {handled} messages, the last of them without an answer");
            Err(Error::new(ErrorKind::Connection, "on purpose")) // a panic would be the same to the pool
        }
    }
}

/// Waits until so many messages are handled, or none is left.
async fn until_handled(
    entries: usize,
    ledger: &Ledger,
    queue: &Arc<dyn Queue>,
    subscription: &str,
) -> anyhow::Result<()> {
    while ledger.entries() < entries && queue.unsettled(subscription).await? > 0 {
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Waits, if a worker has crashed, for the one that the pool starts in its place, after the four that it had.
async fn until_restarted(ledger: &Ledger) {
    while ledger.book().in_hand.is_some() && ledger.book().workers.len() < 5 {
        sleep(LOOK_EVERY).await;
    }
}
