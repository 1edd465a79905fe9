//! How do I stop a consumer without losing or repeating work?
//!
//! The first SIGINT or SIGTERM drains: nothing new is handed out, and the handlers in flight finish. A second one cancels:
//! they are dropped, and their messages wait for the next consumer. Try it, with Ctrl-C once or twice:
//!
//! ```text
//! cargo run --release --example graceful_stop
//! ```
//!
//! What people read goes to stderr; the last line on stdout says as JSON what was acked and what is still pending.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its user")]

use std::time::Duration;

use clap::{Parser, value_parser};
use pgqueue_core::{Ack, BoxError, Job, NewMessage, Publisher, Result, Subscription, Topic, Worker, subscribe};
use pgqueue_examples::Signals;
use pgqueue_memory::MemoryQueue;
use serde::Serialize;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Handles messages slowly, so that there is time to press Ctrl-C.
#[derive(Parser)]
struct Options {
    /// How many messages there are
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = value_parser!(u32).range(..=10_000))]
    messages: u32,

    /// How long each takes, in milliseconds
    #[arg(long, value_name = "M", default_value_t = 1000)]
    handle_ms: u64,
}

#[derive(Serialize)]
struct Summary {
    published: usize,
    acked: usize,
    pending: usize,
    ended: Ended,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Ended {
    /// Nothing was left to do.
    Done,
    /// A signal came, and the handlers in flight finished.
    Drained,
    /// A second signal came.
    Cancelled,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Options { messages, handle_ms } = Options::parse();
    let mut signals = Signals::new()?; // from here on a signal no longer kills

    let queue = MemoryQueue::new();
    queue.create_topic(Topic::new("jobs")).await?;
    let stream = subscribe(queue.subscription(Subscription::new("worker", "jobs"))).await?;
    let jobs: Result<Vec<_>> = (1..=messages).map(|job| NewMessage::json(&job)).collect();
    let published = queue.publish("jobs", jobs?).await?.len();

    let handler = async |job: Job<u32>| {
        eprintln!("job {} started", job.value);
        sleep(Duration::from_millis(handle_ms)).await;
        eprintln!("job {} finished", job.value);
        Ok::<_, BoxError>(Ack::Ok)
    };

    // Stops at a signal, or when nothing is left to do; a service leaves the latter out.
    let stop = CancellationToken::new();
    let stopped = async {
        tokio::select! {
            () = stop.cancelled() => {}
            () = queue.idle("worker") => {}
        }
    };
    let working = Worker::new(stream.until(stopped), handler).with_concurrency(4).run();
    let stopping = async {
        signals.next().await;
        eprintln!("stopping: the jobs in flight finish; a second signal cancels them");
        stop.cancel();
        signals.next().await;
        eprintln!("cancelling: the jobs in flight wait for the next consumer");
    };
    let ended = tokio::select! {
        done = working => {
            done?;
            if stop.is_cancelled() { Ended::Drained } else { Ended::Done }
        }
        () = stopping => Ended::Cancelled, // `working` is dropped here, and its deliveries with it
    };

    let (acked, pending) = (queue.acked("worker")?.len(), queue.pending("worker")?.len());
    println!("{}", serde_json::to_string(&Summary { published, acked, pending, ended })?);
    Ok(())
}
