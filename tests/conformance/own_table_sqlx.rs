//! The conformance kit on a team's own tables through sqlx.

mod network;
mod own_table;
#[path = "../small.rs"]
mod small;

use std::process::ExitCode;

use network::Road;
use own_table::{CAPABILITIES, Counting, make};
use pgqueue_sqlx::Sqlx;

fn main() -> ExitCode {
    pgqueue_conformance::main("own table, sqlx", CAPABILITIES.with_attempts().with_listeners(), || {
        Box::pin(make::<Sqlx>(Road::Direct, Counting::On))
    })
}
