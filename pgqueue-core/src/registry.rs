//! [`Registry`]: which of the stored subscriptions this process serves, and someone who looks after their pools.

mod finding;
mod health;
mod limits;
mod pools;
mod repair;
mod stored;

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use futures::future::BoxFuture;
use tokio::time::sleep;

use self::{limits::Limits, pools::Pools, stored::StoredConsumer};
use crate::{
    ConsumeStream, Error, ErrorKind, Operation, PoolStatus, PoolStop, Result, Subscription, SubscriptionStore,
    WorkerPool, call::call_driver, error::chain, pool::RestartLimit, retry::DEFAULT_TIME_LIMIT,
};

pub use self::{
    finding::{Absence, Finding},
    health::{HealthReport, HealthStatus},
    repair::Repair,
};

/// Serves stored subscriptions: after a restart it starts a [`WorkerPool`] for each that has a handler here, with the
/// options that are stored, and from then on it keeps the pools as the subscriptions are.
///
/// A process says by [`with_handler`](Self::with_handler) which subscriptions it serves, which stores nothing: call
/// [`insert`](Self::insert) once for each, at every start if you like, as below. They are durable, so nothing is missed while no
/// process runs. A handler whose subscription is not stored waits for it; that is no finding.
///
/// The pools never store a subscription: what somebody deletes stays deleted, and its pools fail. Options that somebody
/// alters hold from the next start of a pool on, its size from the next [`repair`](Self::repair) on.
///
/// | what [`health`](Self::health) finds | what [`repair`](Self::repair) does |
/// |---|---|
/// | [`Missing`](Finding::Missing): stored, with a handler here, but no pool runs | starts one, once an earlier one has finished |
/// | [`Orphaned`](Finding::Orphaned): a pool is here whose subscription is not stored any more | stops and forgets it |
/// | [`Resized`](Finding::Resized): the pool's size is not what is stored | resizes it |
/// | [`Stale`](Finding::Stale): stored, with no handler here and no living consumer anywhere | nothing |
/// | [`Lagging`](Finding::Lagging): too far behind | nothing |
/// | [`Cut`](Finding::Cut): messages were deleted before they were handed out | nothing |
/// | [`HorizonHeld`](Finding::HorizonHeld): somebody keeps the store from freeing space | nothing |
///
/// So a repair loses no message: it never deletes a subscription and never moves one.
///
/// Each process that serves a subscription has a pool for it, of as many [workers](Subscription::with_workers) as are stored.
/// An [exclusive](crate::Consumers::Exclusive) subscription takes one worker, and the pools of other processes fail; as
/// each repair starts them again, one of them takes over within its interval when the one that works is gone. Until then they
/// are degraded, and their [`run`](Self::run) ends with an error; to have others stand by, say
/// [`SingleActive`](crate::Consumers::SingleActive).
///
/// ```
/// use pgqueue_core::{Ack, BoxError, HealthStatus, Job, PublisherExt, Registry, Subscription, Topic, Worker};
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
/// let registry =
///     Registry::new(queue.clone()).with_handler("invoices", |stream| Worker::new(stream, invoice).run());
/// registry.insert(&Subscription::new("invoices", "orders").with_workers(4)).await?;
/// assert_eq!(registry.health().await?.status(), HealthStatus::Healthy);
///
/// let order = queue.publish_json("orders", "one espresso").await?;
/// let done = async { queue.wait_acked("invoices", &order).await.map_or((), drop) }; // in a service: a shutdown signal
/// registry.run(done).await // restores, repairs every minute, stops gracefully
/// # }
/// ```
///
/// # Dropping
/// Dropping the registry cancels its pools, as [dropping a pool](WorkerPool#dropping) does. [`stop`](Self::stop) it to let
/// them finish.
#[must_use = "a registry starts nothing by itself, and dropping it cancels its pools"]
pub struct Registry {
    store: Arc<dyn SubscriptionStore>,
    /// What the workers of each subscription run that is served here.
    handlers: BTreeMap<String, Handler>,
    /// A name that was given a second handler: nothing is done then.
    twice: Option<String>,
    restarts: RestartLimit,
    limits: Limits,
    repair_interval: Duration,
    pools: Mutex<Pools>,
}

type Handler = Arc<dyn Fn(ConsumeStream<PoolStop>) -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// What was read from the store.
struct Look {
    stored: BTreeMap<String, Subscription>,
    /// The pools as they were before.
    before: Pools,
}

impl Registry {
    /// Makes a registry without handlers, which serves nothing and reports on all.
    pub fn new(store: impl SubscriptionStore) -> Self {
        Self {
            store: Arc::new(store),
            handlers: BTreeMap::new(),
            twice: None,
            restarts: RestartLimit::default(),
            limits: Limits::default(),
            repair_interval: Duration::from_secs(60),
            pools: Mutex::default(),
        }
    }

    /// Serves the subscription of this name: `run` gets the stream of each of its workers and returns what runs over it, as
    /// in [`WorkerPool::new`].
    ///
    /// A second handler of the same name makes the registry useless: whatever starts pools says
    /// [`ErrorKind::Invalid`] and does nothing.
    pub fn with_handler<Fut>(
        mut self,
        subscription: impl Into<String>,
        run: impl Fn(ConsumeStream<PoolStop>) -> Fut + Send + Sync + 'static,
    ) -> Self
    where
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        let subscription = subscription.into();
        let handler: Handler = Arc::new(move |stream| Box::pin(run(stream)));
        if self.handlers.insert(subscription.clone(), handler).is_some() {
            self.twice = Some(subscription);
        }
        self
    }

    /// Sets how many crashes of its workers each pool takes within a time, as [`WorkerPool::with_restarts`].
    /// Default: 10 within 60 s.
    pub fn with_restarts(mut self, crashes: u32, within: Duration) -> Self {
        self.restarts = RestartLimit { crashes, within };
        self
    }

    /// Sets how often [`run`](Self::run) looks and repairs. Default: 60 s.
    pub fn with_repair_interval(mut self, interval: Duration) -> Self {
        self.repair_interval = interval;
        self
    }

    /// Sets above how many messages that were never handed out, or from what age of the oldest that is not done, a
    /// subscription is [`Lagging`](Finding::Lagging). Default: 10,000 and 5 min.
    ///
    /// A store may [stop counting](crate::SubscriptionStats::waiting) at 10,000, so a higher number may never be seen to be
    /// exceeded. A message that waits for a retry, or sits in a handler, is not done.
    pub fn with_lag_limits(mut self, waiting: u64, oldest: Duration) -> Self {
        self.limits = Limits { waiting, oldest, ..self.limits };
        self
    }

    /// Sets after how long, or after how many transactions, somebody who keeps the store from freeing space is
    /// [a finding](Finding::HorizonHeld). Default: 1 h or 1,000,000 transactions.
    ///
    /// A store that makes 300 transactions a second makes a million in an hour. Each may leave something that cannot be
    /// freed, and a holder may say only one of the two: a replication slot has no time. PostgreSQL itself is alarmed by 200
    /// million.
    pub fn with_horizon_limits(mut self, age: Duration, transactions: u64) -> Self {
        self.limits = Limits { horizon_age: age, horizon_transactions: transactions, ..self.limits };
        self
    }

    /// Starts a pool for each stored subscription that has a handler here and no pool yet, of as many workers as are stored
    /// with it. Returns the names of those that it started.
    ///
    /// For after a restart. Calling it twice, also at the same time, starts nothing twice. Does not wait for the workers to
    /// subscribe: a pool that then fails is a finding of [`health`](Self::health).
    ///
    /// Runs on tokio, with time enabled; the workers run on the runtime that this is called on.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if a subscription has two handlers, or for an impossible restart limit or repair interval.
    /// Else what the store says, or [`ErrorKind::Timeout`] if it takes more than 30 s. Nothing is started then.
    ///
    /// # Cancel safety
    /// Dropping the future starts nothing.
    pub async fn restore(&self) -> Result<Vec<String>> {
        let is_missing = |finding: &Finding| matches!(finding, Finding::Missing { .. });
        let started = self.mend(is_missing).await?.into_iter();
        Ok(started
            .filter_map(|repair| match repair {
                Repair::Started { subscription } => Some(subscription),
                _ => None,
            })
            .collect())
    }

    /// Stores a subscription, or takes the new options of one that is stored, and starts its pool if it has a handler here,
    /// or resizes it if it runs with another number of workers.
    ///
    /// Whoever alters a subscription elsewhere reaches the pools of this process at its next [`repair`](Self::repair).
    ///
    /// # Errors
    /// As [`SubscriptionStore::insert_subscription`] for a subscription that cannot be used, and as
    /// [`restore`](Self::restore). Nothing changes then, but after a [`ErrorKind::Timeout`] it may be stored.
    ///
    /// # Cancel safety
    /// Dropping the future means either outcome for what is stored; the pool stays as it is until the next repair.
    pub async fn insert(&self, subscription: &Subscription) -> Result<()> {
        self.ensure_usable()?;
        let before = self.lock().clone();
        self.ask(Operation::Insert, self.store.insert_subscription(subscription)).await?;
        if let Some(handler) = self.handlers.get(subscription.name()) {
            let mut pools = self.lock();
            if pools.were_not_stopped_since(&before) {
                pools.mend(subscription.name(), Some(subscription), |stored| self.pool(handler, stored))?;
            }
        }
        Ok(())
    }

    /// Returns a stored subscription with its options, if there is one of this name, served here or not.
    ///
    /// # Errors
    /// What the store says, or [`ErrorKind::Timeout`] if it takes more than 30 s.
    ///
    /// # Cancel safety
    /// The future changes nothing.
    pub async fn get(&self, name: &str) -> Result<Option<Subscription>> {
        self.ask(Operation::Manage, self.store.find_subscription(name)).await
    }

    /// Returns all stored subscriptions by name, served here or not.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    ///
    /// # Cancel safety
    /// The future changes nothing.
    pub async fn list(&self) -> Result<Vec<Subscription>> {
        let mut stored = self.ask(Operation::Manage, self.store.subscriptions()).await?;
        stored.sort_by(|one, other| one.name().cmp(other.name()));
        Ok(stored)
    }

    /// Returns how the pool of a subscription stands here, if one was started.
    #[must_use]
    pub fn status(&self, name: &str) -> Option<PoolStatus> {
        self.lock().get(name).map(|pool| pool.status())
    }

    /// Stops the pool of a subscription gracefully, if there is one here, then deletes the subscription with its messages
    /// and dead letters. Pools of other processes fail with [`ErrorKind::NotFound`], which is a finding of their
    /// [`health`](Self::health). If it is inserted again, its handler serves it again.
    ///
    /// Waits for what is in flight, as [`WorkerPool::stop`] does.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such subscription. Else as [`get`](Self::get); its pool is
    /// [`Missing`](Finding::Missing) until the next repair if it is still stored.
    ///
    /// # Cancel safety
    /// Once the future was polled the pool stops, even if the future is dropped; the subscription is deleted or not.
    pub async fn remove(&self, name: &str) -> Result<()> {
        let pool = self.lock().get(name).map(Arc::clone);
        if let Some(pool) = &pool {
            pool.stop().await.ok(); // a failure of earlier does not matter any more
        }
        self.ask(Operation::Manage, self.store.delete_subscription(name)).await?;
        if let Some(pool) = &pool {
            self.lock().forget(name, pool);
        }
        Ok(())
    }

    /// Stops all pools gracefully, as [`WorkerPool::stop`], and returns when all are gone. [`restore`](Self::restore)
    /// starts them again; one that is on its way starts nothing.
    ///
    /// # Errors
    /// If a pool had failed, an error of [`ErrorKind::Fatal`] that names its subscription, with the pool's as source; of
    /// several the first by name. All are gone all the same.
    ///
    /// # Cancel safety
    /// Once the future was polled all pools stop, even if the future is dropped.
    pub async fn stop(&self) -> Result<()> {
        let stopping = self.lock().begin_stop();
        let mut outcome = Ok(());
        for (name, pool) in stopping {
            if let Err(failure) = pool.wait().await {
                let message = format!("the pool of subscription {name:?} had failed");
                outcome = outcome.and(Err(Error::new(ErrorKind::Fatal, message).with_source(failure)));
            }
        }
        outcome
    }

    /// Looks at all stored subscriptions, served here or not, and at the pools here, and says what is amiss.
    ///
    /// It asks the store once for each subscription, one after the other.
    ///
    /// # Errors
    /// What the store says, or [`ErrorKind::Timeout`] if one answer takes more than 30 s.
    ///
    /// # Cancel safety
    /// The future changes nothing.
    pub async fn health(&self) -> Result<HealthReport> {
        let look = self.look().await?;
        let mut findings = self.findings(&look);
        for name in look.stored.keys() {
            let stats = match self.ask(Operation::Manage, self.store.stats(name)).await {
                Err(error) if error.kind() == ErrorKind::NotFound => continue, // deleted meanwhile
                stats => stats?,
            };
            if stats.consumers == 0 && !self.handlers.contains_key(name) {
                findings.push(Finding::Stale { subscription: name.clone() });
            }
            findings.extend(self.limits.judge(stats));
        }
        findings.sort_by(|one, other| one.subscription().cmp(&other.subscription()));
        let holder = self.ask(Operation::Manage, self.store.horizon_holder()).await?;
        let too_long = holder.filter(|holder| self.limits.is_exceeded_by(holder, SystemTime::now()));
        findings.extend(too_long.map(Finding::HorizonHeld));
        Ok(HealthReport { findings })
    }

    /// Does what can be done about [`health`](Self::health) without losing a message: starts pools that are missing, stops
    /// those that are orphaned, resizes. Returns what it did.
    ///
    /// It never deletes a subscription and never moves one. Does not wait for what it starts and stops; calling it twice,
    /// also at the same time, does nothing twice. It leaves alone what was inserted, removed or stopped while it looked.
    ///
    /// # Errors
    /// As [`restore`](Self::restore); nothing is done then.
    ///
    /// # Cancel safety
    /// Dropping the future does nothing.
    pub async fn repair(&self) -> Result<Vec<Repair>> {
        self.mend(|_| true).await
    }

    /// [Restores](Self::restore), then looks and [repairs](Self::repair) after every
    /// [interval](Self::with_repair_interval), until `until` resolves; then [stops](Self::stop) all pools.
    ///
    /// What it finds and what it does are events of `tracing`. So are the store's errors: it tries again after the
    /// interval.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] as [`restore`](Self::restore), at once. As [`stop`](Self::stop) at the end.
    ///
    /// # Cancel safety
    /// Dropping the future ends the repairs; the pools go on. It may run again.
    pub async fn run(&self, until: impl Future<Output = ()> + Send) -> Result<()> {
        self.ensure_usable()?;
        let tending = async {
            if let Err(error) = self.restore().await {
                tracing::error!(error = chain(&error), "restoring the pools of stored subscriptions failed");
            }
            loop {
                sleep(self.repair_interval).await;
                self.tend().await;
            }
        };
        tokio::select! {
            biased;
            () = until => {}
            () = tending => {}
        }
        self.stop().await
    }

    /// Looks and repairs once, and says so to `tracing`.
    async fn tend(&self) {
        match self.health().await {
            Ok(report) => report.findings.iter().for_each(|finding| {
                tracing::warn!(subscription = finding.subscription(), %finding, "something is amiss with a subscription");
            }),
            Err(error) => tracing::error!(error = chain(&error), "looking after the stored subscriptions failed"),
        }
        // Also then: to repair takes less of the store than to look at everything.
        match self.repair().await {
            Ok(repairs) => repairs.iter().for_each(|repair| tracing::info!(%repair, "a pool was repaired")),
            Err(error) => tracing::error!(error = chain(&error), "repairing the pools of stored subscriptions failed"),
        }
    }

    async fn look(&self) -> Result<Look> {
        let before = self.lock().clone();
        let stored = self.ask(Operation::Manage, self.store.subscriptions()).await?;
        let stored = stored.into_iter().map(|subscription| (subscription.name().to_owned(), subscription)).collect();
        Ok(Look { stored, before })
    }

    /// What is amiss with the pools here.
    fn findings(&self, look: &Look) -> Vec<Finding> {
        let pools = self.lock();
        let names = self.handlers.keys().filter(|name| pools.is_as(&look.before, name));
        names.filter_map(|name| pools.finding(name, look.stored.get(name))).collect()
    }

    /// Looks, and mends those findings that concern the pools here.
    async fn mend(&self, concerns: impl Fn(&Finding) -> bool + Send) -> Result<Vec<Repair>> {
        self.ensure_usable()?;
        let look = self.look().await?;
        let mut pools = self.lock();
        let mut repairs = Vec::new();
        for (name, handler) in &self.handlers {
            let stored = look.stored.get(name);
            if pools.is_as(&look.before, name) && pools.finding(name, stored).as_ref().is_some_and(&concerns) {
                repairs.extend(pools.mend(name, stored, |stored| self.pool(handler, stored))?);
            }
        }
        Ok(repairs)
    }

    fn pool(&self, handler: &Handler, subscription: Subscription) -> WorkerPool {
        let (handler, store) = (Arc::clone(handler), Arc::clone(&self.store));
        let workers = subscription.workers();
        let consumer = move || StoredConsumer::new(Arc::clone(&store), subscription.clone());
        let RestartLimit { crashes, within } = self.restarts;
        WorkerPool::new(consumer, move |stream| handler(stream)).with_size(workers).with_restarts(crashes, within)
    }

    /// Asks the store; a panic is an error, and silence meets a time limit.
    async fn ask<T>(&self, operation: Operation, question: impl Future<Output = Result<T>> + Send) -> Result<T> {
        call_driver(operation, DEFAULT_TIME_LIMIT, question).await
    }

    fn ensure_usable(&self) -> Result<()> {
        let refused = |problem: String| Err(Error::new(ErrorKind::Invalid, format!("the registry {problem}")));
        if let Some(name) = &self.twice {
            return refused(format!("has two handlers for subscription {name:?}; give it one"));
        }
        if self.repair_interval.is_zero() {
            return refused("repairs every 0 s; its interval must be longer than zero".to_owned());
        }
        self.restarts.validate()
    }

    fn lock(&self) -> MutexGuard<'_, Pools> {
        // Nothing that waits and no code of others runs under the lock.
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("handlers", &self.handlers.keys())
            .field("restarts", &self.restarts)
            .field("limits", &self.limits)
            .field("repair_interval", &self.repair_interval)
            .field("pools", &*self.lock())
            .finish_non_exhaustive()
    }
}
