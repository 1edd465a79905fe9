//! Measures the queue on PostgreSQL beside what one would write by hand, through the same client and on the same server.

mod arguments;
mod drivers;
mod harness;
mod scenarios;

use anyhow::Result;
use arguments::{Arguments, DriverName, Scenario};
use clap::Parser;
use drivers::{Driver, SqlxDriver, TokioPostgresDriver};
use harness::Bench;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let (scenario, driver) = (arguments.scenario, arguments.driver);
    let mut bench = Bench::start(arguments).await?;
    match driver {
        DriverName::TokioPostgres => run::<TokioPostgresDriver>(&mut bench, scenario).await?,
        DriverName::Sqlx => run::<SqlxDriver>(&mut bench, scenario).await?,
    }
    bench.finish()
}

async fn run<D: Driver>(bench: &mut Bench, scenario: Scenario) -> Result<()> {
    match scenario {
        Scenario::Publish => scenarios::publish::run::<D>(bench).await,
        Scenario::Drain => scenarios::drain::run::<D>(bench).await,
        Scenario::EndToEnd => scenarios::end_to_end::run::<D>(bench).await,
        Scenario::FanOut => scenarios::fan_out::run::<D>(bench).await,
        Scenario::NotifyCost => scenarios::notify_cost::run::<D>(bench).await,
        Scenario::Latency => scenarios::latency::run::<D>(bench).await,
        Scenario::Backlog => scenarios::backlog::run::<D>(bench).await,
        Scenario::CatchUp => scenarios::catch_up::run::<D>(bench).await,
        Scenario::Selector => scenarios::selector::run::<D>(bench).await,
        Scenario::Idle => scenarios::idle::run::<D>(bench).await,
        Scenario::Order => scenarios::order::run::<D>(bench).await,
        Scenario::Ceilings => scenarios::ceilings::run::<D>(bench).await,
        Scenario::Pinned => scenarios::pinned::run::<D>(bench).await,
        Scenario::All => {
            for one in Scenario::EACH {
                Box::pin(run::<D>(bench, one)).await?;
            }
            Ok(())
        }
    }
}
