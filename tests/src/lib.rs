//! The harness that breaks things: processes that publish and consume, a server, and a network between them, of which some are
//! killed, frozen or cut off while all of them note what they do; and an audit of what they noted.
//!
//! `scripts/chaos` runs its [scenarios](Scenario::all) for as long as you like; `cargo test` runs their short forms. Beside
//! it is what other tests of this package share.

mod audit;
mod backend;
mod consumer;
mod event;
mod faults;
mod history;
mod log;
mod migrated;
mod part;
mod process;
mod publisher;
mod recovery;
mod report;
mod scenario;
mod scenarios;
mod sessions;
mod stretches;
mod until;
mod world;

pub use migrated::migrated;
pub use part::{Backing, run_part};
pub use report::{Report, publish_table, table};
pub use scenario::Scenario;
pub use sessions::{END_LISTENERS, WAITS};
pub use stretches::OUTSIDE_OF_STRETCHES;
pub use until::{until, until_sql, until_sql_on};
pub use world::Settings;
