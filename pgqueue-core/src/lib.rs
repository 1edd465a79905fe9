//! The core of pgqueue: a durable, at-least-once publish/subscribe queue whose store is a driver.
//!
//! This crate knows no database. It defines what a driver implements ([`SubscriptionDriver`], [`Acker`],
//! [`Publisher`]), and what its users work with: [`subscribe`] turns a driver into a [`ConsumeStream`] of
//! [`Delivery`]s, and a [`Worker`] runs a handler on each; a [`WorkerPool`] looks after several workers, and a [`Registry`]
//! after the pools of all subscriptions that a process serves.
//!
//! ```
//! use pgqueue_core::{Ack, BoxError, Job, PublisherExt, Result, Subscription, Topic, Worker, subscribe};
//! use pgqueue_memory::MemoryQueue;
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<()> {
//!     let queue = MemoryQueue::new();
//!     queue.create_topic(Topic::new("orders")).await?;
//!     let stream = subscribe(queue.subscription(Subscription::new("invoices", "orders"))).await?;
//!
//!     queue.publish_json("orders", "one espresso").await?;
//!
//!     let handler = async |job: Job<String>| {
//!         println!("invoice for {}", job.value);
//!         Ok::<_, BoxError>(Ack::Ok)
//!     };
//!     let done = queue.idle("invoices");
//!     Worker::new(stream.until(done), handler).run().await
//! }
//! ```
//!
//! # Guarantees
//! - **At least once.** A message comes again until a handler answers OK or Reject, or its attempts are used up; then it
//!   is kept as a dead letter.
//! - **Every subscription** gets every message of its topic published after it was inserted, whether or not anyone is
//!   consuming just then.
//! - **Order**, if the [`Subscription`] asks for it: by key or in total, through batches, retries and crashes.
//! - **Fencing.** A consumer that lost its lease cannot settle; it is told so.
//! - **Nothing hangs and nothing is swallowed.** Calls to drivers have time limits, transient errors are retried by
//!   class, and everything else ends the stream with a typed [`Error`].
//!
//! # Event logs
//! A topic that [retains](Topic::with_retention) its messages is a log. A subscription starts [where it says](Start), gets what
//! its [`Selector`] matches, and in [stable total order](Order::StableTotal) what every other one gets; a [`Checkpoint`] says how
//! far a state made from it has come. [`Consumers`] says whether several may share a subscription. A [`Registry`] serves those that
//! are stored.
//!
//! # Features
//! None is on unless it is asked for.
//! - `metrics`: counts and times through the `metrics` crate; [which](telemetry#metrics).
//! - `opentelemetry`: trace context goes with messages; [how](telemetry#trace-context).
//! - `tower`: tower services as handlers, by `service_handler`.
//!
//! # Writing a driver
//! Implement the three methods of [`SubscriptionDriver`] and the one of [`Acker`]; their docs state the contract and show
//! a complete driver. Then run the `pgqueue-conformance` kit.

// Library code returns errors.
#![warn(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod ack;
mod acker;
mod backoff;
mod batch;
mod bucket;
mod buffer;
mod call;
mod checkpoint;
mod consumers;
mod dead_letter;
mod delivery;
mod driver;
mod error;
mod exponential;
mod failure;
mod feed;
mod id;
mod job;
mod json;
mod json_error;
mod kinds;
mod limits;
mod message;
mod meter;
mod new_message;
mod one_line;
mod outcome;
mod pool;
mod publisher;
mod registry;
mod requeue_watch;
mod retention;
mod retry;
mod router;
mod selector;
#[cfg(feature = "tower")]
mod service;
mod stats;
mod stream;
mod subscribe;
mod subscription;
mod subscription_store;
pub mod telemetry;
mod timestamp;
mod topic;
#[cfg(feature = "opentelemetry")]
mod trace_context;
mod traceparent;
mod worker;

pub use ack::{Ack, Requeue, RequeueCause};
pub use acker::Acker;
pub use backoff::Backoff;
pub use bucket::{bucket, key_hash};
pub use buffer::{BufferReceiver, BufferSender, BufferStats, OverflowPolicy, PushError, buffer};
pub use checkpoint::{Checkpoint, CheckpointStore};
pub use consumers::Consumers;
pub use dead_letter::DeadLetter;
pub use delivery::Delivery;
pub use driver::{SubscriptionDriver, Wakeup, Wakeups};
pub use error::{BoxError, Error, ErrorKind, Operation, Result};
pub use failure::Failure;
pub use id::{MessageId, Position};
pub use job::Job;
pub use json_error::JsonError;
pub use kinds::Kinds;
pub use limits::{MAX_HEADER_VALUE_BYTES, MAX_LABELS, MAX_NAME_BYTES, MAX_PAYLOAD_BYTES, MAX_TEXT_BYTES};
pub use message::Message;
pub use new_message::{Due, NewMessage};
pub use outcome::Outcome;
pub use pool::{PoolState, PoolStatus, PoolStop, WorkerPool};
pub use publisher::{Publisher, PublisherExt};
pub use registry::{Absence, Finding, HealthReport, HealthStatus, Registry, Repair};
pub use retention::{Laggards, Retention};
pub use retry::{RetryConfig, RetryPolicy};
pub use router::{OnUnknown, Routed, Router};
pub use selector::{Comparison, Condition, Selector};
#[cfg(feature = "tower")]
pub use service::service_handler;
pub use stats::{HorizonHolder, SubscriptionStats};
pub use stream::{ConsumeStream, OnRequeue};
pub use subscribe::subscribe;
pub use subscription::{Order, Start, Subscription};
pub use subscription_store::SubscriptionStore;
pub use topic::Topic;
pub use worker::Worker;
