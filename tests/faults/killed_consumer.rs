//! What a consumer held is with others soon, if it is killed and if it is told to stop. These measure time, so they are alone, and
//! one after the other. What is released has a lease of a minute, so that some slack proves as much.

use std::{path::PathBuf, time::Duration};

use pgqueue_tests::{Backing, Scenario, Settings};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_held_is_redelivered_within_seconds() {
    for (name, backing, slack) in [("holder-killed", Backing::TokioPostgres, 1), ("holder-stopped", Backing::Sqlx, 5)] {
        let settings = Settings {
            program: PathBuf::from(env!("CARGO_BIN_EXE_chaos")),
            backing,
            seed: 0,
            long: false,
            slack,
            mix: Duration::ZERO,
            logs: None,
        };
        let report = Scenario::find(name).unwrap().run(&settings).await.unwrap();
        assert!(report.breaches().is_empty(), "{report}");
    }
}
