//! [`Tally`]: whether every message arrived, and none twice.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// How long to wait for the next of what should have arrived.
const PATIENCE: Duration = Duration::from_secs(60);

/// Counts messages by their numbers.
#[derive(Debug)]
pub struct Tally {
    state: Mutex<State>,
    complete: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    /// When each message arrived first.
    arrived: Vec<Option<Instant>>,
    repeated: usize,
    /// How many were answered.
    settled: usize,
    /// How many there will be, once that is known.
    expected: Option<usize>,
}

impl Tally {
    /// Expects messages 0 to `expected`; `None` if that is not known yet.
    #[must_use]
    pub fn new(expected: Option<usize>) -> Self {
        Self { state: Mutex::new(State { expected, ..State::default() }), complete: watch::Sender::new(false) }
    }

    /// Notes that a message arrived.
    pub fn arrived(&self, n: usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if n >= state.arrived.len() {
            state.arrived.resize(n + 1, None);
        }
        match state.arrived[n].replace(Instant::now()) {
            None => {}
            Some(first) => {
                state.arrived[n] = Some(first);
                state.repeated += 1;
            }
        }
    }

    /// Notes that messages were answered, durably.
    pub fn settled(&self, count: usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.settled += count;
        self.look(&state);
    }

    /// How many were answered so far.
    pub fn count_settled(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).settled
    }

    /// Says how many there will be.
    pub(crate) fn expect(&self, count: usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.expected = Some(count);
        self.look(&state);
    }

    fn look(&self, state: &State) {
        if state.expected.is_some_and(|expected| state.settled >= expected) {
            self.complete.send_replace(true);
        }
    }

    /// Whether all were answered.
    pub fn is_complete(&self) -> bool {
        *self.complete.borrow()
    }

    /// Resolves once all are answered, or never will be as none was for long.
    pub async fn complete(&self) {
        let mut complete = self.complete.subscribe();
        let mut settled = None;
        while timeout(PATIENCE, complete.wait_for(|complete| *complete)).await.is_err() {
            let now = Some(self.count_settled());
            if settled == now {
                return;
            }
            settled = now;
        }
    }

    /// Checks that every message arrived once, and returns when.
    ///
    /// # Errors
    ///
    /// When some are missing, or came again.
    pub fn check(&self) -> Result<Vec<Instant>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let arrived: Vec<Instant> = state.arrived.iter().flatten().copied().collect();
        let State { repeated, settled, .. } = *state;
        ensure!(
            Some(arrived.len()) == state.expected
                && arrived.len() == state.arrived.len()
                && repeated == 0
                && settled == arrived.len(),
            "of {:?} messages {} arrived, {repeated} came again, and {settled} were answered",
            state.expected,
            arrived.len(),
        );
        Ok(arrived)
    }
}

/// How many messages publishers may be ahead of the slowest of those who consume, so that what waits stays little.
pub const WINDOW: usize = 10_000;

/// The pause of a publisher that is too far ahead, and for how long it takes them.
const PAUSE: Duration = Duration::from_millis(1);

/// Waits while whoever is to publish message number `n` is more than so many ahead of one of the tallies.
///
/// # Errors
///
/// When it does not get better.
pub(super) async fn keep_pace(n: usize, window: usize, tallies: &[Arc<Tally>]) -> Result<()> {
    let wait = async {
        while tallies.iter().any(|tally| n > tally.count_settled() + window) {
            sleep(PAUSE).await;
        }
    };
    timeout(PATIENCE, wait).await.context("what is published is not consumed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn publishers_keep_pace_with_the_slowest() {
        let tallies = [Arc::new(Tally::new(None)), Arc::new(Tally::new(None))];
        keep_pace(WINDOW, WINDOW, &tallies).await.unwrap();
        tallies[0].settled(1);
        assert!(keep_pace(WINDOW + 1, WINDOW, &tallies).await.is_err());
        tallies[1].settled(1);
        keep_pace(WINDOW + 1, WINDOW, &tallies).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_tally_is_waited_for_while_it_goes_on() {
        let tally = Arc::new(Tally::new(Some(5)));
        let going_on = Arc::clone(&tally);
        tokio::spawn(async move {
            for _ in 0..4 {
                sleep(PATIENCE * 3 / 4).await;
                going_on.settled(1);
            }
        });
        let since = tokio::time::Instant::now();
        tally.complete().await;
        assert!(!tally.is_complete() && since.elapsed() > PATIENCE * 3, "{:?}", since.elapsed());
    }
}
