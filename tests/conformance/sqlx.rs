//! The conformance kit on PostgreSQL through sqlx.

mod harness;
mod network;
#[path = "../small.rs"]
mod small;
mod through_sqlx;

use std::process::ExitCode;

use harness::CAPABILITIES;
use network::Road;
use through_sqlx::ThroughSqlx;

fn main() -> ExitCode {
    pgqueue_conformance::main("sqlx", CAPABILITIES.with_listeners(), || {
        Box::pin(harness::make::<ThroughSqlx>(Road::Direct))
    })
}
