//! How do I publish messages, consume them in order, and live with handlers that fail?
//!
//! A week of earthquakes goes to a topic with two subscriptions: `archive` takes all of them, in order within each seismic
//! network, and `alerts` looks for the strong ones. Now and then a handler fails, and its message comes again.
//!
//! ```text
//! cargo run --release --example quickstart
//! cargo run --release --example quickstart -- --driver tokio-postgres
//! cargo run --release --example quickstart -- --driver sqlx --database-url 'postgres://me@localhost/test?sslmode=disable'
//! ```
//!
//! On PostgreSQL it works in the database that it is given, or in a server of its own that goes with the program. What is in
//! the database stays as it is: topic and subscriptions have new names in every run (`earthquakes_…`), and are deleted at
//! the end unless the program is interrupted. The schema `pgqueue` is made if it is missing, and stays.
//!
//! What people read goes to stderr; the last line on stdout is a summary as JSON.
#![allow(clippy::print_stderr, reason = "a program talks to its user")]

mod audit;
mod summary;

use std::{
    convert::Infallible,
    future::Future,
    io::{Write, stdout},
    path::{Path, PathBuf},
    pin::pin,
    process::ExitCode,
    sync::mpsc,
    time::Duration,
};

use anyhow::Context;
use clap::Parser;
use futures::{StreamExt, try_join};
use pgqueue_core::{
    Ack, Backoff, BoxError, ConsumeStream, ErrorKind, Job, Order, Result, Subscription, Topic, Worker, subscribe,
};
use pgqueue_examples::{BUNDLED, Driver, Earthquake, Queue, alerts, name_of_this_run, read_messages};
use tokio::{
    fs::File,
    io::{AsyncBufRead, BufReader, stdin},
    time::sleep,
};

use crate::{
    audit::Audit,
    summary::{Published, Summary},
};

/// How many messages are published at a time, at most.
const BATCH: usize = 100;

/// Publishes earthquakes, archives them all, and sends alerts of the strong ones.
#[derive(Parser)]
struct Options {
    /// Where the events are, one JSON object a line; `-` is stdin [default: a week of real ones, built in]
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,

    /// What keeps the messages
    #[arg(long, value_enum, default_value_t = Driver::Memory)]
    driver: Driver,

    /// The database to work in, for a driver on PostgreSQL [default: that of a private server]
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,

    /// Let every N-th call of a handler fail; 0 is none. With 1 every message dies after ten attempts, which takes minutes
    /// for a whole week in order
    #[arg(long, value_name = "N", default_value_t = 50)]
    fail_every: usize,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(summary) => match writeln!(stdout(), "{summary}") {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE, // nobody wants to read it
        },
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> anyhow::Result<String> {
    let input = open(options.input.as_deref()).await?;
    let topic = name_of_this_run("earthquakes");
    let queue = options.driver.open(options.database_url, Topic::new(&topic)).await?;

    let done = publish_and_consume(&*queue, &topic, input, options.fail_every).await;
    let deleted = queue.delete_topic(&topic).await;
    let summary = serde_json::to_string(&done?)?;
    deleted?;
    Ok(summary)
}

async fn publish_and_consume(
    queue: &dyn Queue,
    topic: &str,
    input: Input,
    fail_every: usize,
) -> anyhow::Result<Summary> {
    let backoff = Backoff::default().with_base(Duration::from_millis(10)).with_cap(Duration::from_millis(100));
    let subscription = |name| Subscription::new(format!("{topic}_{name}"), topic).with_backoff(backoff);
    let archive = Audit::new("archive", subscription("archive").with_order(Order::ByKey));
    let alert = Audit::new("alerts", subscription("alerts"));

    // Both subscriptions exist before anything is published, so both get everything.
    let archive_stream = subscribe(archive.watch(queue)).await?;
    let alert_stream = subscribe(alert.watch(queue)).await?;

    let archiving = consume(archive_stream, &archive, fail_every, async |_| Ok(Ack::Ok));
    let (pager, paged) = mpsc::channel();
    let alerting =
        consume(alert_stream, &alert, fail_every, |job| alerts(job, |job| Ok(pager.send(job.message().id().clone())?)));
    let publishing = async {
        let published = publish(queue, topic, input).await?;
        eprintln!("published: {} messages; skipped: {} lines", published.messages.len(), published.skipped);
        archive.expect(published.messages.len());
        alert.expect(published.messages.len());
        Ok(published)
    };
    let published = tokio::select! {
        done = async { try_join!(publishing, archiving, alerting) } => done?.0,
        never = report([&archive, &alert]) => match never {},
    };

    eprintln!("{archive}; {alert}");
    Ok(Summary::new(&published, &archive, &alert, paged.try_iter()))
}

type Input = Box<dyn AsyncBufRead + Send + Unpin>;

async fn open(input: Option<&Path>) -> anyhow::Result<Input> {
    let Some(path) = input else { return Ok(Box::new(BUNDLED)) };
    if path == "-" {
        return Ok(Box::new(BufReader::new(stdin())));
    }
    let file = File::open(path).await.with_context(|| format!("cannot open {}", path.display()))?;
    Ok(Box::new(BufReader::new(file)))
}

/// Publishes all good lines in order, in batches of what has been read; reports the others and goes on.
async fn publish(queue: &dyn Queue, topic: &str, input: Input) -> anyhow::Result<Published> {
    let mut published = Published::default();
    let mut batches = pin!(read_messages(input).ready_chunks(BATCH));
    while let Some(lines) = batches.next().await {
        let mut batch = Vec::with_capacity(lines.len());
        for line in lines {
            match line.context("cannot read the input")? {
                Ok(message) => batch.push(message),
                Err(bad) => {
                    eprintln!("skipped {bad}");
                    published.skipped += 1;
                }
            }
        }
        let keys: Vec<_> = batch.iter().map(|message| message.key().map(str::to_owned)).collect();
        let ids = queue.publish(topic, batch).await?;
        published.messages.extend(ids.into_iter().zip(keys));
        tokio::task::yield_now().await; // a memory queue never waits, and the consumers want their turn
    }
    Ok(published)
}

/// Runs `handler` until all of a subscription's messages are settled, and lets every n-th call fail instead.
async fn consume<F>(
    stream: ConsumeStream,
    audit: &Audit,
    fail_every: usize,
    handler: impl Fn(Job<Earthquake>) -> F + Send + Sync,
) -> anyhow::Result<()>
where
    F: Future<Output = Result<Ack, BoxError>> + Send,
{
    let flaky = async |job| {
        if audit.count_call().is_multiple_of(fail_every) { Err("out of luck".into()) } else { handler(job).await }
    };
    let title = audit.title();
    let worker = Worker::new(stream.until(audit.settled()), flaky).on_error(move |failure| {
        if failure.error.kind() != ErrorKind::Handler {
            eprintln!("{title}: {}", failure.error);
        }
    });
    Ok(worker.run().await?)
}

/// Says every second how far the subscriptions are.
async fn report(audits: [&Audit; 2]) -> Infallible {
    loop {
        sleep(Duration::from_secs(1)).await;
        eprintln!("{}; {}", audits[0], audits[1]);
    }
}
