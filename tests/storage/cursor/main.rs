//! The cursor's invariant, under hostile publishers and consumers whose interleaving one seed decides:
//! *every message with an id up to `top` that `seen` sees was handed out exactly once, and no other*.
//!
//! Publishers commit, roll back, go back to savepoints, prepare and leave what they prepared for later; subscriptions are of every
//! order, and some select a part. What the cursors in the tables say is compared with what was handed out, again and again.
//!
//! One task drives many connections. The queue's functions are given a gate between any two of their statements, where
//! a call can be held while others go on, so that what happens in the middle of a claim is decided here and not by luck.
//! In the end all is committed or rolled back, drained, settled and trimmed, and the tables must be empty.
//!
//! - `PGQUEUE_CURSOR_SEEDS` says how many seeds to run.
//! - `PGQUEUE_CURSOR_SEED` names one to replay, with everything that happens:
//!   `PGQUEUE_CURSOR_SEED=7 cargo test -p pgqueue-tests --test storage_cursor every -- --nocapture`

mod audit;
mod consuming;
mod deed;
mod gate;
mod invariant;
mod model;
mod passing;
mod publishing;
mod sabotage;
mod session;
mod store;
mod world;

use std::{
    env,
    num::NonZero,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{sabotage::SABOTAGES, store::Store, world::run};

/// How many seeds are run if nobody says otherwise: a quarter of a minute.
const SEEDS: u64 = 16;
/// Within how many seeds every sabotage shows.
const SEEDS_OF_A_SABOTAGE: u64 = 64;
/// Transactions elsewhere on the server would part what a broken claim confuses, so the tests wait for each other.
static ALONE: Mutex<()> = Mutex::new(());
/// How long a seed may take.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn every_message_is_handed_out_exactly_once_whatever_the_interleaving() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(seed) = setting("PGQUEUE_CURSOR_SEED") {
        return replay(seed);
    }
    let seeds = setting("PGQUEUE_CURSOR_SEEDS").unwrap_or(SEEDS);
    let (next, failures) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let each = |seed: &mut u64| {
        *seed = next.fetch_add(1, Ordering::Relaxed);
        *seed < seeds
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(|| {
                blocking(async {
                    let mut store = Store::make(None).await;
                    let mut seed = 0;
                    while each(&mut seed) {
                        if let Err(wrong) = tried(&store, seed).await {
                            failures.lock().unwrap().push(format!("seed {seed}: {wrong}"));
                            store = Store::make(None).await;
                        }
                    }
                });
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    let how = "PGQUEUE_CURSOR_SEED=… cargo test -p pgqueue-tests --test storage_cursor every -- --nocapture";
    assert!(failures.is_empty(), "{} of {seeds} seeds fail; {how}\n{}", failures.len(), failures.join("\n"));
}

#[test]
#[expect(clippy::print_stdout, reason = "whoever asks wants to see how soon each shows")]
fn a_broken_claim_is_found_out() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let seeds = setting("PGQUEUE_CURSOR_SEEDS").unwrap_or(SEEDS_OF_A_SABOTAGE);
    let unnoticed = blocking(async {
        let mut unnoticed = Vec::new();
        for sabotage in SABOTAGES {
            let store = Store::make(Some(sabotage)).await;
            let mut found = None;
            for seed in (sabotage.seed..).take(usize::try_from(seeds).unwrap()) {
                found = tried(&store, seed).await.err().map(|wrong| (seed, wrong));
                if found.is_some() {
                    break;
                }
            }
            println!("{}: {found:?}", sabotage.name);
            if found.is_none() {
                unnoticed.push(sabotage.name);
            }
        }
        unnoticed
    });
    assert!(unnoticed.is_empty(), "{unnoticed:?} go unnoticed for {seeds} seeds");
}

/// Runs a seed and says what went wrong.
async fn tried(store: &Store, seed: u64) -> Result<(), String> {
    let mut trace = Vec::new();
    let verdict = tokio::time::timeout(PATIENCE, run(store, seed, &mut trace))
        .await
        .unwrap_or_else(|_| Err("it takes too long".to_owned()));
    if verdict.is_err() {
        store.clean_up().await;
    }
    verdict
}

/// Runs a seed and prints what happens, up to what goes wrong.
#[expect(clippy::print_stdout, reason = "whoever replays a seed wants to see it")]
fn replay(seed: u64) {
    let mut trace = Vec::new();
    let verdict = blocking(async {
        let store = Store::make(None).await;
        tokio::time::timeout(PATIENCE, run(&store, seed, &mut trace))
            .await
            .unwrap_or_else(|_| Err("it takes too long".to_owned()))
    });
    trace.iter().for_each(|line| println!("{line}"));
    if let Err(wrong) = verdict {
        panic!("seed {seed}: {wrong}");
    }
}

fn blocking<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn setting(name: &str) -> Option<u64> {
    let value = env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is {value:?}; it must be a number")))
}
