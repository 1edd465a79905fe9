//! The conformance kit on the memory driver, on tokio's paused clock.

mod harness;

use std::process::ExitCode;

fn main() -> ExitCode {
    pgqueue_conformance::main("memory", harness::CAPABILITIES.with_paused_clock(), || Box::pin(harness::make()))
}
