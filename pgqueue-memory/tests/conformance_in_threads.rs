//! The conformance kit on the memory driver, in real time and on several threads.

mod harness;

use std::process::ExitCode;

fn main() -> ExitCode {
    pgqueue_conformance::main("memory, threads", harness::CAPABILITIES, || Box::pin(harness::make()))
}
