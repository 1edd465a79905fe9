//! pgqueue in memory: the whole queue without a server, for tests of handlers and for trying things out.
//!
//! It keeps every promise of the contract but durability, as the conformance kit shows. Time is tokio's, so a test
//! of a retry an hour away takes a millisecond:
//!
//! ```
//! use std::time::Duration;
//! use pgqueue_core::{Ack, Backoff, Job, PublisherExt, Subscription, Topic};
//! use pgqueue_memory::MemoryQueue;
//!
//! async fn handler(job: Job<String>) -> Result<Ack, &'static str> {
//!     if job.message().attempt() == 1 { Err("not today") } else { Ok(Ack::Ok) }
//! }
//!
//! #[tokio::main(flavor = "current_thread", start_paused = true)] // in a test: #[tokio::test(start_paused = true)]
//! async fn main() -> pgqueue_core::Result<()> {
//!     let queue = MemoryQueue::new();
//!     queue.create_topic(Topic::new("orders")).await?;
//!     let hourly = Backoff::fixed(Duration::from_secs(3600));
//!     queue.insert_subscription(&Subscription::new("invoices", "orders").with_backoff(hourly)).await?;
//!     let id = queue.publish_json("orders", "one espresso").await?;
//!
//!     queue.drain("invoices", handler).await?;
//!     assert_eq!(queue.pending("invoices")?.len(), 1);
//!
//!     tokio::time::advance(Duration::from_secs(3600)).await;
//!     queue.drain("invoices", handler).await?;
//!     assert_eq!(queue.wait_acked("invoices", &id).await?.attempt(), 2);
//!     Ok(())
//! }
//! ```
//!
//! Values are published as JSON and read back from it, so a type that does not survive the journey fails the test, not
//! production.

// Library code returns errors.
#![warn(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod acker;
mod activity;
mod checkpoints;
mod clock;
mod consumer;
mod entry;
mod given_up;
mod inspect;
mod lane;
mod lease;
mod log;
mod queue;
mod store;
mod subscription_state;
mod subscription_store;
mod topic_state;
mod wakeups;

pub use consumer::MemorySubscription;
pub use queue::MemoryQueue;
