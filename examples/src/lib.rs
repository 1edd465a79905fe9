//! What the examples share: real events to publish, a handler for them, a queue to work with, and signals.

mod alerts;
mod database;
mod earthquake;
mod input;
mod queue;
mod signals;

pub use alerts::{ALERT_MAGNITUDE, alerts};
pub use database::{database_url, name_of_this_run};
pub use earthquake::Earthquake;
pub use input::{BUNDLED, BadLine, bundled_messages, read_messages};
pub use queue::{Driver, Queue};
pub use signals::Signals;

/// Compiles the programs in the README, and runs the one that needs no server.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
