//! The conformance kit on both clients: on the queue, and on a team's own tables, with and without counted deliveries.

mod harness;
mod network;
mod own_table;
#[path = "../small.rs"]
mod small;
mod through_sqlx;
mod through_tokio_postgres;
mod turns;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use own_table::Counting::{Off, On};
use pgqueue_conformance::trials;
use pgqueue_sqlx::Sqlx;
use pgqueue_tokio_postgres::TokioPostgres;

use crate::{
    network::Road::Direct, through_sqlx::ThroughSqlx, through_tokio_postgres::ThroughTokioPostgres, turns::every_other,
};

/// How many trials run at a time, unless the arguments say otherwise: they wait more than they work.
const THREADS: usize = 8;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);

    let queue = harness::CAPABILITIES.with_listeners();
    let uncounted = own_table::CAPABILITIES;
    let counted = uncounted.with_attempts();
    let all: Vec<Trial> = [
        trials("tokio_postgres", queue, || harness::make::<ThroughTokioPostgres>(Direct)),
        trials("sqlx", queue, || harness::make::<ThroughSqlx>(Direct)),
        every_other(trials("own_table_tokio_postgres", counted, || own_table::make::<TokioPostgres>(On)), 0),
        every_other(trials("own_table_sqlx", counted, || own_table::make::<Sqlx>(On)), 1),
        every_other(trials("uncounted_table_tokio_postgres", uncounted, || own_table::make::<TokioPostgres>(Off)), 1),
        every_other(trials("uncounted_table_sqlx", uncounted, || own_table::make::<Sqlx>(Off)), 0),
    ]
    .into_iter()
    .flatten()
    .collect();
    libtest_mimic::run(&arguments, all).exit_code()
}
