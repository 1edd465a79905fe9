//! Running the scenarios.

use anyhow::Result;

use crate::{
    arguments::{Arguments, Scenario},
    drivers::{Driver, DriverName, SqlxDriver, TokioPostgresDriver},
    harness::Bench,
    scenarios,
};

/// Measures a scenario, and prints what came of it.
///
/// # Errors
///
/// When a contender fails, for example because a message was lost.
pub async fn run(scenario: Scenario, arguments: Arguments) -> Result<()> {
    let driver = arguments.driver;
    let mut bench = Bench::start(arguments).await?;
    match driver {
        DriverName::TokioPostgres => run_with::<TokioPostgresDriver>(&mut bench, scenario).await?,
        DriverName::Sqlx => run_with::<SqlxDriver>(&mut bench, scenario).await?,
        DriverName::Memory => scenarios::in_memory::run(&mut bench, scenario).await?,
    }
    bench.finish()
}

async fn run_with<D: Driver>(bench: &mut Bench, scenario: Scenario) -> Result<()> {
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
                Box::pin(run_with::<D>(bench, one)).await?;
            }
            Ok(())
        }
    }
}
