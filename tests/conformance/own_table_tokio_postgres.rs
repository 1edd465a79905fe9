//! The conformance kit on a team's own tables through tokio-postgres.

mod network;
mod own_table;
#[path = "../small.rs"]
mod small;

use std::process::ExitCode;

use network::Road;
use own_table::{CAPABILITIES, Counting, make};
use pgqueue_tokio_postgres::TokioPostgres;

fn main() -> ExitCode {
    pgqueue_conformance::main("own table, tokio-postgres", CAPABILITIES.with_attempts().with_listeners(), || {
        Box::pin(make::<TokioPostgres>(Road::Direct, Counting::On))
    })
}
