//! The conformance kit on a team's own tables through tokio-postgres, without counting deliveries.

mod network;
mod own_table;
#[path = "../small.rs"]
mod small;

use std::process::ExitCode;

use network::Road;
use own_table::{CAPABILITIES, Counting, make};
use pgqueue_tokio_postgres::TokioPostgres;

fn main() -> ExitCode {
    pgqueue_conformance::main("uncounted table, tokio-postgres", CAPABILITIES.with_listeners(), || {
        Box::pin(make::<TokioPostgres>(Road::Direct, Counting::Off))
    })
}
