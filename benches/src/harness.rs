//! What all scenarios share: a server, rounds that take turns, and a report.

mod bench;
mod chart;
mod consumer;
mod contender;
mod cpu;
mod measurement;
mod meter;
mod payload;
mod peak;
mod pour;
mod profile;
mod progress;
mod report;
mod sample;
mod tally;
mod zipf;

pub use bench::Bench;
pub(crate) use consumer::{Queue, consume, consume_as, work_off};
pub use contender::Contender;
pub(crate) use contender::Target;
pub use measurement::Measurement;
pub(crate) use measurement::{TOPIC, load};
pub use meter::{Meter, Spent};
pub use payload::{number, payload};
pub(crate) use pour::{Bare, Consumed, Keyed, Ours};
pub use pour::{Poured, Sink, pour, pour_all};
pub use sample::Sample;
use tally::keep_pace;
pub use tally::{Tally, WINDOW};
pub(crate) use zipf::Zipf;
