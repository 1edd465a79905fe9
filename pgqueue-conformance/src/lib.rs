//! The conformance kit of pgqueue: run it to know that a driver keeps every promise of the contract.
//!
//! A driver's whole `tests/conformance.rs` is this, with `harness = false` for that test in its `Cargo.toml`:
//!
//! ```no_run
//! use std::{process::ExitCode, sync::Arc};
//!
//! use async_trait::async_trait;
//! use pgqueue_conformance::{Capabilities, Harness};
//! use pgqueue_core::{MessageId, NewMessage, Publisher, Result, Subscription, SubscriptionDriver, Topic};
//! use pgqueue_memory::MemoryQueue;
//!
//! const CAPABILITIES: Capabilities = Capabilities::new()
//!     .with_explicit_topics()
//!     .with_concurrent()
//!     .with_keys()
//!     .with_unsubscribe()
//!     .with_paused_clock();
//!
//! struct Memory(MemoryQueue);
//!
//! #[async_trait]
//! impl Harness for Memory {
//!     async fn create_topic(&self, topic: Topic) -> Result<()> {
//!         self.0.create_topic(topic).await
//!     }
//!
//!     async fn driver(&self, subscription: Subscription) -> Result<Arc<dyn SubscriptionDriver>> {
//!         Ok(Arc::new(self.0.subscription(subscription)))
//!     }
//!
//!     async fn publish(&self, topic: &str, messages: Vec<NewMessage>) -> Result<Vec<MessageId>> {
//!         self.0.publish(topic, messages).await
//!     }
//!
//!     async fn unsubscribe(&self, subscription: &str) -> Result<()> {
//!         self.0.delete_subscription(subscription).await
//!     }
//! }
//!
//! async fn make() -> Result<Box<dyn Harness>> {
//!     Ok(Box::new(Memory(MemoryQueue::new())))
//! }
//!
//! fn main() -> ExitCode {
//!     pgqueue_conformance::main("memory", CAPABILITIES, make)
//! }
//! ```
//!
//! `cargo test --test conformance` then shows each promise by name, such as `requeue::dropped_delivery_is_redelivered`:
//! kept, broken (with what was seen instead), or ignored because the driver does not claim what it needs. Start from
//! [`Capabilities::new`] and claim more as the driver learns more.
//!
//! # How cases work
//! - Each case has a [`Harness`], and so a backend, of its own, with one topic in it. Cases run in parallel.
//! - What must happen is waited for with [patience](Harness::patience), what must not with [quiet](Harness::quiet); nothing
//!   else is timed but that delays are not cut short. Slow machines make cases slower, not wrong.
//! - [`cases`] lists them all, to run them some other way.
//!
//! # Faults
//! [`Faulty`] wraps any driver and lets calls fail, hang, or lose their reply. The kit's own cases use it; tests of
//! services may, too.

// Library code returns errors.
#![warn(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod capabilities;
mod case;
mod cases;
mod crew;
mod expect;
mod failure;
mod faulty;
mod harness;
mod kit;
mod run;

pub use capabilities::{Capabilities, Capability};
pub use case::Case;
pub use cases::cases;
pub use failure::CaseFailure;
pub use faulty::{Fault, Faulty};
pub use harness::{Harness, Uncommitted};
pub use run::{main, trials};
