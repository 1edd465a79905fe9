//! [`Tally`]: whether every message arrived, and none twice.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use tokio::{sync::watch, time::timeout};

/// How long to wait for what should have arrived.
const PATIENCE: Duration = Duration::from_secs(120);

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
    pub(crate) fn count_settled(&self) -> usize {
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

    /// Resolves once all are answered, or never will be.
    pub async fn complete(&self) {
        timeout(PATIENCE, self.complete.subscribe().wait_for(|complete| *complete)).await.ok();
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
