//! Every case of the kit, against a store that has every capability, on tokio's paused clock.

mod support;

use std::process::ExitCode;

use pgqueue_conformance::Harness;

fn main() -> ExitCode {
    let make = async || Ok(Box::new(support::SimulatedStore::default()) as Box<dyn Harness>);
    pgqueue_conformance::main("simulated", support::CAPABILITIES.with_paused_clock(), make)
}
