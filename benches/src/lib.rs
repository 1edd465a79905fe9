//! Measures the queue on PostgreSQL beside what one would write by hand, through the same client and on the same server.
//!
//! The program `pgqueue-bench` runs the scenarios. What is public here lets another program put other queues beside this one, with
//! the same harness: a [`Bench`] starts a private server and lets [`Contender`]s take turns on it. A contender is a function from
//! a [`Measurement`] to a [`Sample`].

mod arguments;
mod beside;
mod drivers;
mod harness;
mod run;
mod scenarios;

pub use arguments::{Arguments, Scenario};
pub use beside::{
    By, drain, drain_by_hand, end_to_end, keys, latency, order, publish, publish_bare, publish_coalescing,
};
pub use drivers::DriverName;
pub use harness::{
    Bench, Contender, Measurement, Meter, Poured, Sample, Sink, Spent, Tally, WINDOW, number, payload, pour, pour_all,
};
pub use run::run;
