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

/// Compiles the programs in the guide, and runs those that need no server.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../../docs/src/why.md")]
    struct Why;
    #[doc = include_str!("../../docs/src/first-queue.md")]
    struct FirstQueue;
    #[doc = include_str!("../../docs/src/drivers.md")]
    struct Drivers;
    #[doc = include_str!("../../docs/src/order.md")]
    struct Order;
    #[doc = include_str!("../../docs/src/retries.md")]
    struct Retries;
    #[doc = include_str!("../../docs/src/exactly-once.md")]
    struct ExactlyOnce;
    #[doc = include_str!("../../docs/src/testing.md")]
    struct Testing;
    #[doc = include_str!("../../docs/src/write-a-driver.md")]
    struct WriteADriver;
    #[doc = include_str!("../../docs/src/servers.md")]
    struct Servers;
    #[doc = include_str!("../../docs/src/size.md")]
    struct Size;
    #[doc = include_str!("../../docs/src/operating.md")]
    struct Operating;
    #[doc = include_str!("../../docs/src/upgrades.md")]
    struct Upgrades;
    #[doc = include_str!("../../docs/src/options.md")]
    struct Options;
}
