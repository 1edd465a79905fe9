//! Deterministic simulation: core and the memory driver on the paused clock, under a schedule of faults that one seed
//! decides.
//!
//! A run has several topics, subscriptions of every order and a crowd of consumers, which come, fail, freeze, crash and
//! go while messages are published, wake-ups get lost and time jumps. Then all faults cease, the queue is drained, and
//! what happened is checked against what the queue promises. What happened is all that the checks know.
//!
//! - `PGQUEUE_SIMULATION_SEEDS` says how many seeds to run.
//! - `PGQUEUE_SIMULATION_SEED` names one to replay, with everything that happens:
//!   `PGQUEUE_SIMULATION_SEED=7 cargo test -p pgqueue-tests --test simulation every -- --nocapture`

mod check;
mod conduct;
mod consumer;
mod crew;
mod deeds;
mod event;
mod faults;
mod habits;
mod history;
mod item;
mod ledger;
mod link;
mod log;
mod lossy;
mod model;
mod observed;
mod sabotage;
mod schedule;
mod step;
mod temper;
mod world;

use std::{
    env,
    num::NonZero,
    panic::catch_unwind,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use crate::{check::check, sabotage::SABOTAGES, world::run};

/// How many seeds are run if nobody says otherwise: seconds, not minutes.
const SEEDS: u64 = 2_000;

#[test]
fn every_promise_is_kept_whatever_happens() {
    if let Some(seed) = setting("PGQUEUE_SIMULATION_SEED") {
        return replay(seed);
    }
    let seeds = setting("PGQUEUE_SIMULATION_SEEDS").unwrap_or(SEEDS);
    let (next, failures) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let seeds =
                    std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed))).take_while(|seed| *seed < seeds);
                seeds.filter_map(failure).for_each(|failure| failures.lock().unwrap().push(failure));
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {seeds} seeds fail:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 0..100 {
        let (once, again) = (run(seed, None), run(seed, None));
        let difference = once.iter().zip(&again).find(|(once, again)| once != again);
        assert!(difference.is_none(), "seed {seed} goes two ways: {difference:#?}");
        assert_eq!(once.len(), again.len(), "seed {seed} goes on or not");
    }
}

#[test]
fn broken_drivers_are_found_out() {
    for (sabotage, says) in SABOTAGES {
        let found =
            (0..100).find_map(|seed| check(&run(seed, Some(sabotage))).err().filter(|(_, wrong)| wrong.contains(says)));
        assert!(found.is_some(), "{sabotage:?} goes unnoticed");
    }
}

/// Runs a seed and says what went wrong.
fn failure(seed: u64) -> Option<String> {
    let wrong = match catch_unwind(|| check(&run(seed, None))) {
        Ok(verdict) => verdict.err()?.1,
        Err(_) => "it panicked, as is said above".to_owned(),
    };
    let how = "cargo test -p pgqueue-tests --test simulation every -- --nocapture";
    Some(format!("seed {seed}: {wrong}\n  PGQUEUE_SIMULATION_SEED={seed} {how}"))
}

/// Runs a seed and prints what happened, up to what went wrong.
#[expect(clippy::print_stdout, reason = "whoever replays a seed wants to see it")]
fn replay(seed: u64) {
    let history = run(seed, None);
    let verdict = check(&history);
    let events = verdict.as_ref().map_or_else(|(events, _)| *events, |()| history.len());
    history[..events].iter().for_each(|event| println!("{event}"));
    if let Err((_, wrong)) = verdict {
        panic!("seed {seed}: {wrong}");
    }
}

fn setting(name: &str) -> Option<u64> {
    let value = env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is {value:?}; it must be a number")))
}
