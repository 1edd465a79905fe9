//! Measures the queue on PostgreSQL beside what one would write by hand.

use anyhow::Result;
use clap::Parser;
use pgqueue_bench::{Arguments, Scenario, run};

/// Measures the queue beside what one would write by hand, on a private server of its own.
#[derive(Debug, Parser)]
struct Program {
    /// What to measure.
    scenario: Scenario,
    #[command(flatten)]
    arguments: Arguments,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Program { scenario, arguments } = Program::parse();
    run(scenario, arguments).await
}
