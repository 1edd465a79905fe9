//! Every case of the kit that needs no paused clock, against a store that has every other capability, in real time and in
//! parallel.

mod support;

use std::process::ExitCode;

use pgqueue_conformance::Harness;

fn main() -> ExitCode {
    let make = async || Ok(Box::new(support::SimulatedStore::default()) as Box<dyn Harness>);
    pgqueue_conformance::main("simulated", support::CAPABILITIES, make)
}
