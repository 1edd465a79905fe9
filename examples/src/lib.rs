//! What the examples share: real events to publish, a handler for them, and a database to work in.

mod alerts;
mod database;
mod earthquake;
mod input;

pub use alerts::{ALERT_MAGNITUDE, alerts};
pub use database::{database_url, name_of_this_run};
pub use earthquake::Earthquake;
pub use input::{BUNDLED, BadLine, read_messages};

/// Compiles the programs in the README, and runs the one that needs no server.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
