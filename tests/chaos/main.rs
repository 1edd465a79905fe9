//! The short forms of the scenarios of `scripts/chaos`: under load, processes, servers and the network fail, and the logs of all
//! processes are audited.

use std::{path::PathBuf, time::Duration};

use pgqueue_tests::{Backing, Scenario, Settings};

/// Runs a scenario, through the client of its turn.
async fn promises_are_kept(name: &str) {
    let place = Scenario::all().iter().position(|scenario| scenario.name() == name).expect("a scenario");
    let settings = Settings {
        program: PathBuf::from(env!("CARGO_BIN_EXE_chaos")),
        backing: [Backing::TokioPostgres, Backing::Sqlx][place % 2],
        seed: fastrand::u64(..),
        long: false,
        slack: 5,
        mix: Duration::from_secs(10),
        logs: None,
    };
    let report = Scenario::all()[place].run(&settings).await.unwrap();
    assert!(report.breaches().is_empty(), "seed {}\n{report}", settings.seed);
}

/// Makes a test of each scenario that is named.
macro_rules! keeps_its_promises {
    ($($test:ident: $scenario:literal),* $(,)?) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            promises_are_kept($scenario).await;
        })*
    };
}

keeps_its_promises!(
    killed_consumers_lose_nothing: "consumers-killed",
    late_answers_of_frozen_consumers_are_refused: "consumer-frozen",
    message_that_kills_its_consumers_dies_alone: "poison",
    work_that_outlasts_the_lease_is_done_once: "slow-consumer",
    killed_publishers_publish_all_or_nothing: "publishers-killed",
    what_is_rolled_back_never_comes: "publishers-roll-back",
    killed_server_loses_nothing: "server-killed",
    forgotten_claims_lose_nothing: "server-killed-slow-wal",
    terminated_backends_lose_nothing: "backends-terminated",
    outage_of_the_database_loses_nothing: "database-out",
    promoted_standby_has_everything: "standby-promoted",
    slow_network_loses_nothing: "network-delayed",
    cut_network_loses_nothing: "network-cut",
    black_hole_loses_nothing: "network-black-holed",
    half_closed_connections_lose_nothing: "network-half-closed",
    lost_answers_lose_nothing: "answers-lost",
);
