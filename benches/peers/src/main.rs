//! Measures what a user could pick instead beside the queue: in one run, on one private server, taking turns.

mod job;
mod migrations;
mod peer;
mod peers;
mod scenarios;
mod selection;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use pgqueue_bench::{Arguments, Bench};
use selection::Selection;

/// Measures other queues on PostgreSQL beside this one, on a private server of its own.
#[derive(Debug, Parser)]
struct Program {
    /// What to measure.
    scenario: Scenario,
    /// Measures only those whose names contain this, beside the queue.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    #[command(flatten)]
    arguments: Arguments,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Publishing, in batches and one by one.
    Publish,
    /// Working off a backlog.
    Drain,
    /// Publishing and consuming at the same time, where everything is for several.
    EndToEnd,
    /// From when a message is due to the handler of an idle consumer.
    Latency,
    /// Working off in order by key.
    Order,
    /// All of these.
    All,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Program { scenario, only, arguments } = Program::parse();
    let only = Selection(only);
    let mut bench = Bench::start(arguments).await?;
    let is_asked = |one| [one, Scenario::All].contains(&scenario);
    if is_asked(Scenario::Publish) {
        scenarios::publish::run(&mut bench, &only).await?;
    }
    if is_asked(Scenario::Drain) {
        scenarios::drain::run(&mut bench, &only).await?;
    }
    if is_asked(Scenario::EndToEnd) {
        scenarios::end_to_end::run(&mut bench, &only).await?;
    }
    if is_asked(Scenario::Order) {
        scenarios::order::run(&mut bench, &only).await?;
    }
    if is_asked(Scenario::Latency) {
        scenarios::latency::run(&mut bench, &only).await?;
    }
    bench.finish()
}
