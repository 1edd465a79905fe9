//! [`Faulty`]: a driver that fails as planned.

use std::{
    fmt, future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use pgqueue_core::{Ack, Acker, Delivery, Error, Result, SubscriptionDriver, Wakeups};

/// A driver around another that fails as planned, to test what consumes it.
///
/// Calls without a [`Fault`] go through unchanged.
///
/// ```
/// use futures::StreamExt;
/// use pgqueue_conformance::{Fault, Faulty};
/// use pgqueue_core::{Error, ErrorKind, Subscription, Topic, PublisherExt, subscribe};
/// use pgqueue_memory::MemoryQueue;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> pgqueue_core::Result<()> {
/// let queue = MemoryQueue::new();
/// queue.create_topic(Topic::new("orders")).await?;
/// let driver = queue.subscription(Subscription::new("invoices", "orders"));
///
/// let refused = || Error::new(ErrorKind::Fatal, "the disk is full");
/// let faulty = Faulty::new(driver).on_fetch(Fault::error(refused).after_effect().times(1));
///
/// let error = subscribe(faulty).await?.next().await.expect("an item").expect_err("it fails");
/// assert_eq!(error.to_string(), "fetching pending deliveries: the disk is full");
/// # Ok(())
/// # }
/// ```
pub struct Faulty<D> {
    driver: D,
    insert: Option<Fault>,
    listen: Option<Fault>,
    fetch: Option<Fault>,
    /// Shared with the deliveries.
    settle: Option<Arc<Fault>>,
}

/// How a call to a [`Faulty`] driver goes wrong.
pub struct Fault {
    outcome: Outcome,
    after_effect: bool,
    /// How many calls are still to fail.
    left: AtomicUsize,
}

enum Outcome {
    Error(Box<dyn Fn() -> Error + Send + Sync>),
    Hang,
}

impl Fault {
    /// The call fails with what `make` makes, and has no effect.
    pub fn error(make: impl Fn() -> Error + Send + Sync + 'static) -> Self {
        Self::new(Outcome::Error(Box::new(make)))
    }

    /// The call never returns, and has no effect.
    #[must_use]
    pub fn hang() -> Self {
        Self::new(Outcome::Hang)
    }

    fn new(outcome: Outcome) -> Self {
        Self { outcome, after_effect: false, left: AtomicUsize::new(usize::MAX) }
    }

    /// Lets the call take effect first, as when only the reply is lost.
    #[must_use]
    pub fn after_effect(mut self) -> Self {
        self.after_effect = true;
        self
    }

    /// Lets only the first `calls` calls fail. Default: all.
    #[must_use]
    pub fn times(mut self, calls: usize) -> Self {
        self.left = AtomicUsize::new(calls);
        self
    }

    async fn strike<T: Send>(&self, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let spent = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err();
        if spent {
            return call.await;
        }
        // What the call did or would do lives until this future ends, as it would in a real driver.
        let (call, _effect) = if self.after_effect { (None, Some(call.await?)) } else { (Some(call), None) };
        let _call = call;
        match &self.outcome {
            Outcome::Error(make) => Err(make()),
            Outcome::Hang => future::pending().await,
        }
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = match self.outcome {
            Outcome::Error(_) => "error",
            Outcome::Hang => "hang",
        };
        f.debug_struct("Fault")
            .field("outcome", &outcome)
            .field("after_effect", &self.after_effect)
            .field("left", &self.left)
            .finish()
    }
}

/// Makes a call, through its fault if there is one.
async fn call<T: Send>(fault: Option<&Fault>, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
    match fault {
        Some(fault) => fault.strike(call).await,
        None => call.await,
    }
}

impl<D: SubscriptionDriver> Faulty<D> {
    /// Wraps a driver, without a fault as yet.
    pub fn new(driver: D) -> Self {
        Self { driver, insert: None, listen: None, fetch: None, settle: None }
    }

    /// Sets how inserting the subscription fails.
    #[must_use]
    pub fn on_insert(mut self, fault: Fault) -> Self {
        self.insert = Some(fault);
        self
    }

    /// Sets how listening fails.
    #[must_use]
    pub fn on_listen(mut self, fault: Fault) -> Self {
        self.listen = Some(fault);
        self
    }

    /// Sets how fetching fails. After the effect, what was claimed is released when the call ends.
    #[must_use]
    pub fn on_fetch(mut self, fault: Fault) -> Self {
        self.fetch = Some(fault);
        self
    }

    /// Sets how settling fails. Without the effect, the delivery is released when the call ends.
    #[must_use]
    pub fn on_settle(mut self, fault: Fault) -> Self {
        self.settle = Some(Arc::new(fault));
        self
    }
}

#[async_trait]
impl<D: SubscriptionDriver> SubscriptionDriver for Faulty<D> {
    async fn insert_subscription(&self) -> Result<()> {
        call(self.insert.as_ref(), self.driver.insert_subscription()).await
    }

    async fn listen(&self) -> Result<Wakeups> {
        call(self.listen.as_ref(), self.driver.listen()).await
    }

    async fn fetch_pending(&self) -> Result<Option<Delivery>> {
        let fetched = call(self.fetch.as_ref(), self.driver.fetch_pending()).await?;
        let Some(fault) = &self.settle else { return Ok(fetched) };
        let faulty = |acker| FaultyAcker { acker, fault: Arc::clone(fault) };
        Ok(fetched.map(|delivery| delivery.map_acker(faulty)))
    }
}

impl<D: fmt::Debug> fmt::Debug for Faulty<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { driver, insert, listen, fetch, settle } = self;
        f.debug_struct("Faulty")
            .field("driver", driver)
            .field("insert", insert)
            .field("listen", listen)
            .field("fetch", fetch)
            .field("settle", settle)
            .finish()
    }
}

struct FaultyAcker {
    acker: Box<dyn Acker>,
    fault: Arc<Fault>,
}

#[async_trait]
impl Acker for FaultyAcker {
    async fn settle(self: Box<Self>, ack: Ack) -> Result<()> {
        let Self { acker, fault } = *self;
        fault.strike(acker.settle(ack)).await
    }

    fn lease_lost(&self) -> BoxFuture<'static, ()> {
        self.acker.lease_lost()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pgqueue_core::{ErrorKind, PublisherExt, Subscription, Topic};
    use pgqueue_memory::MemoryQueue;
    use tokio::time::timeout;

    use super::*;

    const QUIET: Duration = Duration::from_millis(100);

    async fn driver() -> (MemoryQueue, Faulty<pgqueue_memory::MemorySubscription>) {
        let queue = MemoryQueue::new();
        queue.create_topic(Topic::new("t")).await.unwrap();
        let driver = Faulty::new(queue.subscription(Subscription::new("s", "t")));
        driver.insert_subscription().await.unwrap();
        queue.publish_json("t", "a").await.unwrap();
        (queue, driver)
    }

    async fn ends_with(call: impl Future<Output = Result<()>>, kind: Option<ErrorKind>) {
        let ended = timeout(QUIET, call).await.ok().map(|result| result.unwrap_err().kind());
        assert_eq!(ended, kind);
    }

    #[tokio::test(start_paused = true)]
    async fn settling_fails_with_and_without_its_effect() {
        let error = || Fault::error(|| Error::new(ErrorKind::Query, "planned"));
        for (fault, seen, acked) in [
            (error(), Some(ErrorKind::Query), 0),
            (error().after_effect(), Some(ErrorKind::Query), 1),
            (Fault::hang(), None, 0),
            (Fault::hang().after_effect(), None, 1),
        ] {
            let (queue, driver) = driver().await;
            let driver = driver.on_settle(fault);
            let delivery = driver.fetch_pending().await.unwrap().unwrap();
            ends_with(delivery.ok(), seen).await;
            assert_eq!((queue.acked("s").unwrap().len(), queue.pending("s").unwrap().len()), (acked, 1 - acked));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_that_hangs_after_its_effect_holds_what_it_claimed() {
        let (queue, driver) = driver().await;
        let driver = driver.on_fetch(Fault::hang().after_effect());
        let mut fetch = driver.fetch_pending();
        assert!(timeout(QUIET, &mut fetch).await.is_err());
        assert_eq!(queue.in_flight("s").unwrap().len(), 1);
        drop(fetch);
        assert_eq!(queue.pending("s").unwrap().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn faults_may_be_few() {
        let (_queue, driver) = driver().await;
        let driver = driver.on_fetch(Fault::error(|| Error::new(ErrorKind::Query, "planned")).times(2));
        assert!(driver.fetch_pending().await.is_err());
        assert!(driver.fetch_pending().await.is_err());
        assert!(driver.fetch_pending().await.unwrap().is_some());
    }
}
