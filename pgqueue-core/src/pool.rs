//! [`WorkerPool`]: several workers of one subscription, and someone who looks after them.

mod restarts;
mod status;
mod stop;
mod supervisor;
mod work;

use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
    task::AbortHandle,
};

use self::{
    status::Progress,
    supervisor::Supervisor,
    work::{Closures, Work},
};
use crate::{ConsumeStream, Error, ErrorKind, Result, SubscriptionDriver};

pub(crate) use self::restarts::RestartLimit;
pub use self::{
    status::{PoolState, PoolStatus},
    stop::PoolStop,
};

/// Runs workers of one subscription, each on a task of its own, and restarts those that crash.
///
/// It is made of two closures. The first makes a driver, which is one more consumer of the subscription. The second gets
/// that consumer's stream and returns what runs over it: a [`Worker`](crate::Worker) with any handler and options. Leave the
/// stream's [`until`](ConsumeStream::until) to the pool, which stops its workers by it.
///
/// Each message goes to one of the workers, and the subscription's [`Order`](crate::Order) holds across all of them.
/// Handlers of different workers run in parallel, if the runtime has several threads.
///
/// | a worker's run | the pool |
/// |---|---|
/// | returns `Err` or panics | restarts the worker after a pause, up to [a limit](Self::with_restarts); then it fails |
/// | returns `Err` of [`Invalid`](ErrorKind::Invalid), [`NotFound`](ErrorKind::NotFound), [`Conflict`](ErrorKind::Conflict) or [`Truncated`](ErrorKind::Truncated) | fails at once: no restart cures that, and it would insert again a subscription that was deleted |
/// | returns `Ok` | ends, unless it was the pool that asked this worker to stop |
///
/// A pool that fails or ends lets its other workers finish what they have in hand. What goes wrong in a handler, panics
/// included, concerns its message only and is no crash, unless [`OnRequeue::Stop`](crate::OnRequeue::Stop) makes it one.
///
/// ```
/// use pgqueue_core::{Ack, BoxError, Job, PublisherExt, Subscription, Topic, Worker, WorkerPool};
/// use pgqueue_memory::MemoryQueue;
///
/// async fn invoice(job: Job<String>) -> Result<Ack, BoxError> {
///     println!("invoice for {}", job.value);
///     Ok(Ack::Ok)
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> pgqueue_core::Result<()> {
/// let queue = MemoryQueue::new();
/// queue.create_topic(Topic::new("orders")).await?;
///
/// let consumers = queue.clone();
/// let driver = move || consumers.subscription(Subscription::new("invoices", "orders"));
/// let pool = WorkerPool::new(driver, |stream| Worker::new(stream, invoice).run()).with_size(4);
/// pool.start().await?;
///
/// let order = queue.publish_json("orders", "one espresso").await?;
/// queue.wait_acked("invoices", &order).await?;
/// pool.resize(2)?;
/// pool.stop().await
/// # }
/// ```
///
/// # Dropping
/// Dropping the pool cancels it, as soon as the runtime gets to it: the workers are dropped with their handlers in flight,
/// whose messages are requeued. [`stop`](Self::stop) it to let them finish.
#[must_use = "a pool runs nothing unless it is started, and dropping it cancels its workers"]
pub struct WorkerPool {
    work: Arc<dyn Work>,
    limit: RestartLimit,
    /// How many workers there should be, also after the next start.
    size: watch::Sender<usize>,
    /// The latest run.
    run: Mutex<Option<Run>>,
}

/// What a pool has in hand from one start to the next.
struct Run {
    /// Dropping it asks to stop.
    stop: Option<oneshot::Sender<()>>,
    progress: watch::Receiver<Progress>,
    supervisor: AbortHandle,
}

impl WorkerPool {
    /// Makes a pool of one worker, which is not started.
    ///
    /// `driver` is called for every worker and every restart, `run` after each has subscribed. A panic in either is a
    /// crash of that worker.
    pub fn new<D, Fut>(
        driver: impl Fn() -> D + Send + Sync + 'static,
        run: impl Fn(ConsumeStream<PoolStop>) -> Fut + Send + Sync + 'static,
    ) -> Self
    where
        D: SubscriptionDriver,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        Self {
            work: Arc::new(Closures { driver, run }),
            limit: RestartLimit::default(),
            size: watch::Sender::new(1),
            run: Mutex::default(),
        }
    }

    /// Sets how many workers there are. Default: 1.
    pub fn with_size(self, workers: usize) -> Self {
        self.size.send_replace(workers);
        self
    }

    /// Sets how many crashes of its workers, all counted together, the pool takes within a time; one more fails it.
    /// Default: 10 within 60 s.
    ///
    /// The first restart comes after about 100 ms; the more crashes there were within that time, the longer the pause, up to
    /// 5 s at most. A store that is out of reach for longer than [`RetryConfig`](crate::RetryConfig) allows crashes all
    /// workers at once, so a pool of many wants a higher limit.
    pub fn with_restarts(mut self, crashes: u32, within: Duration) -> Self {
        self.limit = RestartLimit { crashes, within };
        self
    }

    /// Inserts the subscription, so that what is published from now on is kept for the workers, and starts them. A pool
    /// that has stopped, ended or failed can be started again.
    ///
    /// Runs on tokio, with time enabled; the workers run on the runtime that this is called on.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if the pool runs already, or has not finished stopping; it goes on as it was.
    /// [`ErrorKind::Invalid`] for a size of 0 or an impossible restart limit. Else what the driver says to inserting the
    /// subscription, or [`ErrorKind::Timeout`] if that takes more than 30 s. Nothing is started then.
    ///
    /// # Cancel safety
    /// Dropping the future starts nothing; the subscription is inserted or not.
    pub async fn start(&self) -> Result<()> {
        self.ensure_startable(self.lock().as_ref())?;
        self.work.insert().await?;
        self.launch()
    }

    /// Starts the workers of a subscription that is known to be inserted; a [`start`](Self::start) that never waits.
    pub(crate) fn launch(&self) -> Result<()> {
        let runtime = Handle::current(); // there is one, since the time limit of asking the store ran on it
        let mut run = self.lock();
        self.ensure_startable(run.as_ref())?; // now, whatever it was before a wait
        let (stop, stopped) = oneshot::channel();
        let (progress, seen) = watch::channel(Progress::started());
        let supervisor = Supervisor::new(Arc::clone(&self.work), self.limit, self.size.subscribe(), progress);
        let supervisor = runtime.spawn(supervisor.run(stopped)).abort_handle();
        *run = Some(Run { stop: Some(stop), progress: seen, supervisor });
        Ok(())
    }

    /// Stops the workers gracefully: they take no further delivery and finish those in flight. Returns when all are gone;
    /// at once if none run. A handler that never returns is waited for, unless it has a
    /// [timeout](crate::Worker::with_timeout). A handler of this very pool must not wait for this, since it would wait for
    /// itself.
    ///
    /// A worker that crashes while it stops is reported to `tracing` only; what it held is requeued.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    ///
    /// # Cancel safety
    /// Once the future was polled the pool stops, even if the future is dropped.
    pub async fn stop(&self) -> Result<()> {
        self.begin_stop();
        self.wait().await
    }

    /// Asks the workers to stop, and does not wait for that.
    pub(crate) fn begin_stop(&self) {
        drop(self.lock().as_mut().and_then(|run| run.stop.take()));
    }

    /// Waits until the pool has stopped, ended or failed, and all its workers are gone; returns at once if it was never
    /// started.
    ///
    /// # Errors
    /// If the pool failed, an error of [`ErrorKind::Fatal`] whose source is the [`Error`] of the last crash; every call says
    /// so, until the pool is started again.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn wait(&self) -> Result<()> {
        let Some(mut progress) = self.lock().as_ref().map(|run| run.progress.clone()) else { return Ok(()) };
        let over = progress.wait_for(Progress::is_over).await.map(|over| over.failure.clone());
        match over {
            Ok(Some(crash)) => Err(self.limit.failure(crash)),
            Ok(None) => Ok(()),
            Err(_) => Err(shut_down()),
        }
    }

    /// Returns why the pool has failed, if it has: what [`wait`](Self::wait) says.
    pub(crate) fn failure(&self) -> Option<Error> {
        let run = self.lock();
        let run = run.as_ref().filter(|run| run.status(0).state == PoolState::Failed)?;
        let crash = run.progress.borrow().failure.clone();
        Some(crash.map_or_else(shut_down, |crash| self.limit.failure(crash)))
    }

    /// Sets how many workers there are, now and after the next start. Does not wait: more are started at once; fewer
    /// stop as in [`stop`](Self::stop), so that for a while there are more than asked for.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a size of 0; nothing changes.
    pub fn resize(&self, workers: usize) -> Result<()> {
        ensure_size(workers)?;
        self.size.send_if_modified(|size| std::mem::replace(size, workers) != workers);
        Ok(())
    }

    /// Returns how the pool stands.
    #[must_use]
    pub fn status(&self) -> PoolStatus {
        let size = *self.size.borrow();
        match &*self.lock() {
            Some(run) => run.status(size),
            None => PoolStatus { state: PoolState::Stopped, size, workers: 0, crashes: 0 },
        }
    }

    fn ensure_startable(&self, run: Option<&Run>) -> Result<()> {
        ensure_size(*self.size.borrow())?;
        self.limit.validate()?;
        ensure_over(run)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Run>> {
        // Nothing that can panic half-way runs under the lock.
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Run {
    fn status(&self, size: usize) -> PoolStatus {
        let is_gone = self.supervisor.is_finished(); // first, since its last word comes before its end
        let progress = self.progress.borrow();
        let (state, workers) = match progress.state {
            PoolState::Running | PoolState::Stopping if is_gone => (PoolState::Failed, 0), // with its runtime
            state => (state, progress.workers),
        };
        PoolStatus { state, size, workers, crashes: progress.crashes }
    }
}

fn ensure_size(workers: usize) -> Result<()> {
    if workers == 0 {
        return Err(Error::new(ErrorKind::Invalid, "the pool has a size of 0; it must be 1 or more"));
    }
    Ok(())
}

fn ensure_over(run: Option<&Run>) -> Result<()> {
    match run.map(|run| run.status(0).state) {
        Some(PoolState::Running) => Err(Error::new(ErrorKind::Conflict, "the pool runs already")),
        Some(PoolState::Stopping) => {
            Err(Error::new(ErrorKind::Conflict, "the pool is still stopping; wait for that before starting it again"))
        }
        Some(PoolState::Stopped | PoolState::Failed) | None => Ok(()),
    }
}

fn shut_down() -> Error {
    Error::new(ErrorKind::Fatal, "the runtime that the pool was started on has shut down")
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        if let Some(run) = &*self.lock() {
            run.supervisor.abort(); // and with it its workers
        }
    }
}

impl fmt::Debug for WorkerPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerPool").field("limit", &self.limit).field("status", &self.status()).finish_non_exhaustive()
    }
}
