//! [`Supervisor`]: the task that has a pool's workers, as many as there should be.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use tokio::{
    sync::{oneshot, watch},
    task::{Id, JoinError, JoinSet},
    time::Instant,
};

use super::{
    restarts::{RestartLimit, Restarts},
    status::{PoolState, Progress},
    work::Work,
};
use crate::{Error, ErrorKind, PoolStop, Result, error::chain};

pub(crate) struct Supervisor {
    work: Arc<dyn Work>,
    restarts: Restarts,
    /// How many workers there should be.
    size: watch::Receiver<usize>,
    /// All workers; they are dropped with it.
    workers: JoinSet<Result<()>>,
    /// Those that are to stay, the newest last. Dropping a sender asks its worker to stop.
    staying: Vec<(Id, oneshot::Sender<()>)>,
    progress: watch::Sender<Progress>,
}

/// How a worker's task ended.
type Left = std::result::Result<(Id, Result<()>), JoinError>;

impl Supervisor {
    pub(crate) fn new(
        work: Arc<dyn Work>,
        limit: RestartLimit,
        size: watch::Receiver<usize>,
        progress: watch::Sender<Progress>,
    ) -> Self {
        let restarts = Restarts::new(limit);
        Self { work, restarts, size, workers: JoinSet::new(), staying: Vec::new(), progress }
    }

    /// Runs workers until they are to stop, one of them has ended, or a crash is not to be met by a restart; then lets all finish.
    pub(crate) async fn run(mut self, stop: oneshot::Receiver<()>) {
        tracing::info!(workers = *self.size.borrow(), "a pool was started");
        let failure = self.supervise(stop).await.err();
        self.staying.clear();
        self.report(PoolState::Stopping);
        while let Some(left) = self.workers.join_next_with_id().await {
            if let (_, Err(error)) = ended(left) {
                tracing::warn!(error = chain(&error), "a worker crashed while its pool stopped");
            }
            self.report(PoolState::Stopping);
        }
        self.progress.send_modify(|progress| {
            progress.state = if failure.is_some() { PoolState::Failed } else { PoolState::Stopped };
            progress.failure = failure.map(Arc::new);
        });
    }

    /// Keeps as many workers as there should be, until they are all to go; an error is the crash that fails the pool.
    async fn supervise(&mut self, mut stop: oneshot::Receiver<()>) -> Result<()> {
        let mut pause = Duration::ZERO;
        loop {
            self.fit(pause);
            self.report(PoolState::Running);
            pause = tokio::select! {
                biased;
                _ = &mut stop => {
                    tracing::info!("a pool was asked to stop");
                    return Ok(());
                }
                Some(left) = self.workers.join_next_with_id() => match self.see_off(left)? {
                    ControlFlow::Continue(pause) => pause,
                    ControlFlow::Break(()) => return Ok(()),
                },
                Ok(()) = self.size.changed() => {
                    tracing::info!(workers = *self.size.borrow(), "a pool was resized");
                    Duration::ZERO
                }
            };
        }
    }

    /// Hires workers, who begin after `pause`, or asks the newest to stop, until as many stay as there should be.
    fn fit(&mut self, pause: Duration) {
        let size = *self.size.borrow_and_update();
        self.staying.truncate(size);
        while self.staying.len() < size {
            let (stop, stopped) = PoolStop::new();
            let work = Arc::clone(&self.work);
            let task = self.workers.spawn(async move { work.run(pause, stopped).await });
            self.staying.push((task.id(), stop));
        }
    }

    /// Decides what a worker's end means for the pool: to go on, with a pause before a worker in its place begins, or to
    /// end. An error is a crash that fails the pool.
    fn see_off(&mut self, left: Left) -> Result<ControlFlow<(), Duration>> {
        let (id, ended) = ended(left);
        let staying = self.staying.len();
        self.staying.retain(|(worker, _)| *worker != id);
        let was_to_stay = self.staying.len() < staying;
        let Err(error) = ended else {
            return Ok(if was_to_stay { ControlFlow::Break(()) } else { ControlFlow::Continue(Duration::ZERO) });
        };
        if !was_to_stay {
            tracing::warn!(error = chain(&error), "a worker crashed while it stopped");
            return Ok(ControlFlow::Continue(Duration::ZERO));
        }
        self.progress.send_modify(|progress| progress.crashes += 1);
        let Some(pause) = self.restarts.pause_after(&error, Instant::now()) else {
            tracing::error!(
                error = chain(&error),
                "a worker crashed and will not be restarted; its pool stops and fails"
            );
            return Err(error);
        };
        tracing::warn!(error = chain(&error), ?pause, "a worker crashed and will be restarted");
        Ok(ControlFlow::Continue(pause))
    }

    fn report(&self, state: PoolState) {
        self.progress.send_modify(|progress| {
            progress.state = state;
            progress.workers = self.workers.len();
        });
    }
}

/// Who ended, and how; a panic is an error.
fn ended(left: Left) -> (Id, Result<()>) {
    left.unwrap_or_else(|error| {
        let shut_down = |_| Error::new(ErrorKind::Fatal, "the worker's task was cancelled; its runtime shuts down");
        (error.id(), Err(error.try_into_panic().map_or_else(shut_down, Error::panic)))
    })
}
