//! [`PoolStatus`]: how a pool of workers stands.

use std::sync::Arc;

use crate::Error;

/// How a [`WorkerPool`](crate::WorkerPool) stands at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive] // so that counters can be added
pub struct PoolStatus {
    /// Whether it runs.
    pub state: PoolState,
    /// How many workers there should be.
    pub size: usize,
    /// How many there are, those included that pause before a restart, or finish what is in flight before they are gone.
    pub workers: usize,
    /// How many crashes led to a restart or to the failure since the pool was last started.
    pub crashes: u64,
}

/// Whether a [`WorkerPool`](crate::WorkerPool) runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive] // other states may come
pub enum PoolState {
    /// It was started, and restarts workers that crash.
    Running,
    /// It was asked to stop, a worker's run has ended, or it is about to fail: what is in flight is being finished.
    Stopping,
    /// It was never started, or all its workers have stopped.
    Stopped,
    /// Its workers crashed too often, or for a reason that no restart cures, and are gone;
    /// [`wait`](crate::WorkerPool::wait) returns the error. Or the runtime that it was started on has shut down.
    Failed,
}

impl PoolState {
    pub(crate) fn is_over(self) -> bool {
        match self {
            Self::Running | Self::Stopping => false,
            Self::Stopped | Self::Failed => true,
        }
    }
}

/// What the supervisor of a run tells the pool.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) state: PoolState,
    pub(crate) workers: usize,
    pub(crate) crashes: u64,
    /// The last crash, if the pool has failed.
    pub(crate) failure: Option<Arc<Error>>,
}

impl Progress {
    pub(crate) fn started() -> Self {
        Self { state: PoolState::Running, workers: 0, crashes: 0, failure: None }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.state.is_over()
    }
}
