//! A store of subscriptions, over the memory driver, that fails, answers late or says what a test wants.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use pgqueue_core::{
    ErrorKind, HorizonHolder, Result, Subscription, SubscriptionDriver, SubscriptionStats, SubscriptionStore,
};
use pgqueue_memory::MemoryQueue;
use tokio::time::sleep;

use crate::script::fault;

#[derive(Clone)]
pub(crate) struct Flawed {
    pub(crate) queue: MemoryQueue,
    flaws: Arc<Mutex<Flaws>>,
}

#[derive(Clone, Default)]
struct Flaws {
    error: Option<ErrorKind>,
    /// Whether it cannot tell how subscriptions stand.
    no_stats: bool,
    latency: Duration,
    holder: Option<HorizonHolder>,
    stats_asked: usize,
}

impl Flawed {
    pub(crate) fn new(queue: &MemoryQueue) -> Self {
        Self { queue: queue.clone(), flaws: Arc::default() }
    }

    /// Answers with an error of this kind from now on, or the truth.
    pub(crate) fn fail(&self, error: Option<ErrorKind>) {
        self.flaws.lock().unwrap().error = error;
    }

    /// Answers with an error from now on, if it is asked for statistics.
    pub(crate) fn fail_stats(&self) {
        self.flaws.lock().unwrap().no_stats = true;
    }

    /// Answers late from now on; what it says is true when it is asked.
    pub(crate) fn delay(&self, latency: Duration) {
        self.flaws.lock().unwrap().latency = latency;
    }

    pub(crate) fn hold_horizon(&self, holder: HorizonHolder) {
        self.flaws.lock().unwrap().holder = Some(holder);
    }

    /// How often it was asked for statistics.
    pub(crate) fn stats_asked(&self) -> usize {
        self.flaws.lock().unwrap().stats_asked
    }

    async fn answer<T>(&self, truth: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let flaws = self.flaws.lock().unwrap().clone();
        if let Some(kind) = flaws.error {
            return Err(fault(kind));
        }
        let answer = truth.await;
        if !flaws.latency.is_zero() {
            sleep(flaws.latency).await;
        }
        answer
    }
}

#[async_trait]
impl SubscriptionStore for Flawed {
    fn consumer(&self, subscription: Subscription) -> Arc<dyn SubscriptionDriver> {
        self.queue.consumer(subscription)
    }

    async fn subscriptions(&self) -> Result<Vec<Subscription>> {
        self.answer(self.queue.subscriptions()).await
    }

    async fn find_subscription(&self, name: &str) -> Result<Option<Subscription>> {
        self.answer(self.queue.find_subscription(name)).await
    }

    async fn insert_subscription(&self, subscription: &Subscription) -> Result<()> {
        self.answer(self.queue.insert_subscription(subscription)).await
    }

    async fn delete_subscription(&self, name: &str) -> Result<()> {
        self.answer(self.queue.delete_subscription(name)).await
    }

    async fn stats(&self, name: &str) -> Result<SubscriptionStats> {
        let no_stats = {
            let mut flaws = self.flaws.lock().unwrap();
            flaws.stats_asked += 1;
            flaws.no_stats
        };
        if no_stats {
            return Err(fault(ErrorKind::Query));
        }
        self.answer(self.queue.stats(name)).await
    }

    async fn horizon_holder(&self) -> Result<Option<HorizonHolder>> {
        let holder = self.flaws.lock().unwrap().holder.clone();
        self.answer(async { Ok(holder) }).await
    }
}
