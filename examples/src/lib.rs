//! What the examples share: real events to publish, and a handler for them.

mod alerts;
mod earthquake;
mod input;

pub use alerts::{ALERT_MAGNITUDE, alerts};
pub use earthquake::Earthquake;
pub use input::{BUNDLED, BadLine, read_messages};

/// Compiles and runs the program in the README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
