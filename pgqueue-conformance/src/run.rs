//! [`main`] and [`trials`]: the cases as a test program.

use std::{future::Future, process::ExitCode, sync::Arc};

use libtest_mimic::{Arguments, Failed, Trial};
use pgqueue_core::Result;
use tokio::runtime::{Builder, Runtime};

use crate::{Capabilities, Capability, Case, Harness, cases};

/// How many cases run at a time in real time, unless the arguments say otherwise: they wait more than they work.
const THREADS: usize = 16;

/// Runs every case that `capabilities` allows, each on a backend of its own that `make` makes.
///
/// It understands the arguments of `cargo test`: names filter, `--test-threads` limits how many run at a time. Cases that
/// need what is not claimed are shown as ignored, with what they need.
///
/// With [`PausedClock`](Capability::PausedClock) each case has a current-thread runtime whose clock is paused, else a
/// multi-thread runtime in real time.
pub fn main<F, Fut>(driver: &str, capabilities: Capabilities, make: F) -> ExitCode
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Box<dyn Harness>>>,
{
    let trials = trials_of(driver, |case| case.to_owned(), capabilities, make);
    let mut arguments = Arguments::from_args();
    if !capabilities.claims(Capability::PausedClock) {
        arguments.test_threads.get_or_insert(THREADS);
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Returns what [`main`] would run, named after the driver and the case: for a program that tries several drivers, or one
/// in several ways, at the same time. Run them with the version of `libtest-mimic` that this crate depends on.
pub fn trials<F, Fut>(driver: &str, capabilities: Capabilities, make: F) -> Vec<Trial>
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Box<dyn Harness>>>,
{
    trials_of(driver, |case| format!("{driver}::{case}"), capabilities, make)
}

fn trials_of<F, Fut>(driver: &str, name: impl Fn(&str) -> String, capabilities: Capabilities, make: F) -> Vec<Trial>
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Box<dyn Harness>>>,
{
    let make = Arc::new(make);
    let trial = |case: &'static Case| {
        let missing = case.needs().iter().filter(|need| !capabilities.claims(**need));
        let missing = missing.map(|need| format!("{need:?}")).collect::<Vec<_>>().join(", ");
        let kind = if missing.is_empty() { driver.to_owned() } else { format!("{driver} lacks {missing}") };
        let make = Arc::clone(&make);
        Trial::test(name(case.name()), move || run(case, capabilities, &*make))
            .with_kind(kind)
            .with_ignored_flag(!missing.is_empty())
    };
    cases().iter().map(trial).collect()
}

fn run<Fut>(case: &Case, capabilities: Capabilities, make: impl Fn() -> Fut) -> Result<(), Failed>
where
    Fut: Future<Output = Result<Box<dyn Harness>>>,
{
    runtime(capabilities)?.block_on(async {
        let harness = Box::pin(make()).await?; // on the heap, as it may be large where it is not optimized
        case.run(harness).await?;
        Ok(())
    })
}

fn runtime(capabilities: Capabilities) -> std::io::Result<Runtime> {
    if capabilities.claims(Capability::PausedClock) {
        Builder::new_current_thread().enable_all().start_paused(true).build()
    } else {
        Builder::new_multi_thread().worker_threads(2).enable_all().build()
    }
}
