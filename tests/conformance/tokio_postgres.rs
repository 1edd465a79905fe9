//! The conformance kit on PostgreSQL through tokio-postgres.

mod harness;
mod network;
#[path = "../small.rs"]
mod small;
mod through_tokio_postgres;

use std::process::ExitCode;

use harness::CAPABILITIES;
use network::Road;
use through_tokio_postgres::ThroughTokioPostgres;

fn main() -> ExitCode {
    pgqueue_conformance::main("tokio-postgres", CAPABILITIES.with_listeners(), || {
        Box::pin(harness::make::<ThroughTokioPostgres>(Road::Direct))
    })
}
