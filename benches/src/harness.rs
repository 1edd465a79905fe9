//! What all scenarios share: a server, rounds that take turns, and a report.

mod bench;
mod chart;
mod consumer;
mod contender;
mod cpu;
mod measurement;
mod meter;
mod payload;
mod pour;
mod profile;
mod progress;
mod report;
mod sample;
mod tally;
mod zipf;

pub(crate) use bench::Bench;
pub(crate) use consumer::{consume, work_off};
pub(crate) use contender::{Contender, Target};
pub(crate) use measurement::{Measurement, TOPIC};
pub(crate) use meter::Spent;
pub(crate) use payload::{number, payload};
pub(crate) use pour::{Bare, Keyed, Ours, Sink, pour};
pub(crate) use sample::Sample;
pub(crate) use tally::Tally;
pub(crate) use zipf::Zipf;
