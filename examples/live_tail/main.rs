//! How do I see what goes through a topic, and only what interests me?
//!
//! Prints the messages of a topic that a selector matches, one JSON object a line: first what the topic still has, then what
//! comes, until Ctrl-C. The selector is evaluated in the database, so what does not match never gets here:
//!
//! ```text
//! cargo run --release --example live_tail
//! cargo run --release --example live_tail -- --kind explosion --kind 'quarry blast' --exit-when-caught-up
//! cargo run --release --example live_tail -- --key ak --greater mag=3 --tag felt
//! cargo run --release --example live_tail -- --from now --database-url 'postgres://me@localhost/test?sslmode=disable' --topic orders
//! ```
//!
//! Without a URL it starts a server of its own that goes with the program, and publishes a week of earthquakes there: their
//! key is the seismic network, their kind the type, and their tags say what else there is (`strong`, `felt`, `tsunami`, and
//! `reviewed` or `automatic`). The last few come live, one after the other.
//!
//! In a database that it is given it only looks. A topic has a past as far as it retains one (`Topic::with_retention`), or
//! other subscriptions still need it. The subscription of the tail has a new name in every run (`live_tail_…`) and is deleted
//! at the end, also on the first SIGINT or SIGTERM, which lets it finish the line, and on a second one, which does not wait
//! for that. Only if it is killed does the subscription stay, and keeps messages until somebody deletes it.
//!
//! What people read goes to stderr. The exit code is 2 if the selector or the position cannot be used, and 1 if something
//! else goes wrong. Should an answer be lost on its way, its lines come again: delivery is at least once.
#![allow(clippy::print_stderr, reason = "a program talks to its user")]

mod conditions;
mod earthquakes;
mod line;
mod tail;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use pgqueue_core::{Error, ErrorKind, Order, Position, Start, Subscription};
use pgqueue_examples::{Signals, database_url, name_of_this_run};
use pgqueue_postgres::{Client, PgQueue};
use pgqueue_sqlx::Sqlx;
use pgqueue_tokio_postgres::TokioPostgres;

use crate::{conditions::Conditions, tail::Tail};

/// How many messages are printed, and answered, at a time, at most.
const BATCH: usize = 100;

/// Prints the messages of a topic that meet all conditions, first the past, then what comes.
#[derive(Parser)]
struct Options {
    /// The topic [default: `earthquakes`, on a private server]
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,

    /// From where on
    #[arg(long, value_enum, default_value_t = From::Beginning, conflicts_with = "after")]
    from: From,

    /// Only what comes after the line with this position
    #[arg(long, value_name = "POSITION")]
    after: Option<String>,

    /// End when nothing is left to print, instead of waiting for more
    #[arg(long)]
    exit_when_caught_up: bool,

    /// The client that talks to PostgreSQL
    #[arg(long, value_enum, default_value_t = Driver::TokioPostgres)]
    driver: Driver,

    /// The database to look into [default: that of a private server, with earthquakes]
    #[arg(long, value_name = "URL", requires = "topic")]
    database_url: Option<String>,

    #[command(flatten)]
    conditions: Conditions,

    /// Print what does not meet all conditions, instead of what does
    #[arg(long, requires = "conditions")]
    not: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum From {
    /// The oldest message that the topic still has
    Beginning,
    /// What is published from now on
    Now,
}

#[derive(Clone, Copy, ValueEnum)]
enum Driver {
    TokioPostgres,
    Sqlx,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let done = match options.driver {
        Driver::TokioPostgres => run::<TokioPostgres>(options).await,
        Driver::Sqlx => run::<Sqlx>(options).await,
    };
    let Err(error) = done else { return ExitCode::SUCCESS };
    eprintln!("error: {error:#}");
    match error.downcast_ref().map(Error::kind) {
        Some(ErrorKind::Invalid) => ExitCode::from(2), // as clap does
        _ => ExitCode::FAILURE,
    }
}

async fn run<C: Client>(options: Options) -> anyhow::Result<()> {
    let topic = options.topic.unwrap_or_else(|| "earthquakes".to_owned());
    let start = match (options.after, options.from) {
        (Some(position), _) => Start::After(Position::new(position)),
        (None, From::Beginning) => Start::Beginning,
        (None, From::Now) => Start::Now,
    };
    let selector = options.conditions.selector();
    let selector = if options.not { !selector } else { selector };
    selector.validate()?; // before a server is started for it
    let subscription = Subscription::new(name_of_this_run("live_tail"), &topic)
        .with_start(start)
        .with_selector(selector)
        .with_order(Order::Total)
        .with_batch(BATCH);

    let is_private = options.database_url.is_none();
    let queue = PgQueue::<C>::connect(&database_url(options.database_url).await?).await?;
    let live = if is_private { earthquakes::fill(&queue, &topic).await? } else { Vec::new() };

    let signals = Signals::new()?; // from here on a signal no longer kills: there is something to clean up
    let tail = Tail { queue: &queue, subscription: &subscription, exits: options.exit_when_caught_up };
    let tailed = tail.run(live, signals).await;
    let deleted = tail.delete().await;
    eprintln!("{} messages", tailed?);
    Ok(deleted?)
}
