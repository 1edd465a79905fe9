//! Everything through PgBouncer in transaction mode, on both clients and at the same time: the conformance kit on the queue, and
//! what the kit cannot ask, also of a team's own tables. It hands out sessions in turn and knows no prepared statements.
//!
//! Without PgBouncer this fails, unless `PGQUEUE_WITHOUT_PGBOUNCER` is set: then it says that it did not run, and why.

mod harness;
mod network;
#[path = "../small.rs"]
mod small;
mod through_sqlx;
mod through_tokio_postgres;
mod turns;

#[allow(dead_code, reason = "shared with other tests, of which each uses a part")]
#[path = "../postgres/common.rs"]
mod common;
#[path = "../pooler/listening.rs"]
mod listening;
#[path = "../pooler/place.rs"]
mod place;
#[path = "../pooler/queue.rs"]
mod queue;
#[path = "../pooler/tables.rs"]
mod tables;
#[path = "../pooler/trials.rs"]
mod trials;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use libtest_mimic::{Arguments, Trial};
use pgqueue_conformance::trials as of_kit;
use pgqueue_sqlx::Sqlx;
use pgqueue_testserver::{PgBouncer, test_server};
use pgqueue_tokio_postgres::TokioPostgres;
use tokio::runtime::Runtime;

use crate::{through_sqlx::ThroughSqlx, through_tokio_postgres::ThroughTokioPostgres, turns::every_other};

/// How many trials run at a time, unless the arguments say otherwise: they wait more than they work.
const THREADS: usize = 8;

/// Says that these tests are not to be run.
const WITHOUT: &str = "PGQUEUE_WITHOUT_PGBOUNCER";

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    listening::record_warnings();

    let capabilities = harness::CAPABILITIES;
    let mut trials: Vec<Trial> = [
        every_other(of_kit("tokio_postgres", capabilities, || harness::make::<ThroughTokioPostgres>(place::road())), 0),
        every_other(of_kit("sqlx", capabilities, || harness::make::<ThroughSqlx>(place::road())), 1),
    ]
    .into_iter()
    .flatten()
    .collect();
    for client in [trials::own::<TokioPostgres>("tokio_postgres"), trials::own::<Sqlx>("sqlx")] {
        trials.extend(client);
    }
    if arguments.list {
        return libtest_mimic::run(&arguments, trials).exit_code();
    }

    if std::env::var_os(WITHOUT).is_some_and(|value| !value.is_empty()) {
        say(&format!("did not run: {} tests through PgBouncer, as {WITHOUT} is set", trials.len()));
        return ExitCode::SUCCESS;
    }
    let runtime = Runtime::new().unwrap();
    match runtime.block_on(async { PgBouncer::start(test_server().await?.port()).await }) {
        Ok(pooler) => {
            place::set(&pooler);
            libtest_mimic::run(&arguments, trials).exit_code()
        }
        Err(error) => {
            say(&format!("{error}\n{WITHOUT}=1 goes without these {} tests", trials.len()));
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) {
    writeln!(io::stdout(), "{text}").ok(); // nobody reads it, then
}
