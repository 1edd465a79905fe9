//! [`MemorySubscription`]: one consumer of a subscription, the driver itself.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use pgqueue_core::{Delivery, Result, Subscription, SubscriptionDriver, Wakeups};

use crate::{lease::ConsumerId, store::Store, wakeups::wakeups};

/// One consumer of one subscription of a [`MemoryQueue`](crate::MemoryQueue), as
/// [`MemoryQueue::subscription`](crate::MemoryQueue::subscription) makes it.
///
/// A consumer in the same process cannot miss a beat, so its leases last until their deliveries are settled or dropped.
/// [`pause_heartbeat`](Self::pause_heartbeat) and [`crash`](Self::crash) simulate one that is frozen or killed.
pub struct MemorySubscription {
    store: Arc<Store>,
    options: Subscription,
    consumer: Arc<Consumer>,
}

/// What a consumer and its deliveries share.
pub(crate) struct Consumer {
    id: ConsumerId,
    subscription: Arc<str>,
    crashed: AtomicBool,
}

impl Consumer {
    pub(crate) fn id(&self) -> ConsumerId {
        self.id
    }

    pub(crate) fn subscription(&self) -> &str {
        &self.subscription
    }

    pub(crate) fn has_crashed(&self) -> bool {
        self.crashed.load(Ordering::Relaxed)
    }
}

impl MemorySubscription {
    pub(crate) fn new(store: Arc<Store>, options: Subscription) -> Self {
        static LAST_ID: AtomicU64 = AtomicU64::new(0);
        let id = LAST_ID.fetch_add(1, Ordering::Relaxed);
        let consumer = Consumer { id, subscription: options.name().into(), crashed: AtomicBool::new(false) };
        Self { store, options, consumer: Arc::new(consumer) }
    }

    /// Stops renewing this consumer's leases, as when its process is frozen. They end after
    /// [`Subscription::lease`] unless the heartbeat [resumes](Self::resume_heartbeat) before; what it settles after that is
    /// refused.
    pub fn pause_heartbeat(&self) {
        self.set_beating(false);
    }

    /// Renews the leases that this consumer still has, from now on.
    pub fn resume_heartbeat(&self) {
        self.set_beating(true);
    }

    /// Lets this consumer die as its process would: its leases are not renewed, and dropping its deliveries releases
    /// nothing. They go to others after [`Subscription::lease`].
    pub fn crash(&self) {
        self.consumer.crashed.store(true, Ordering::Relaxed);
        self.set_beating(false);
    }

    fn set_beating(&self, beating: bool) {
        let (mut state, now) = self.store.lock();
        if let Ok(subscription) = state.advance(self.options.name(), now) {
            subscription.set_beating(self.consumer.id, beating, now);
        }
    }
}

#[async_trait]
impl SubscriptionDriver for MemorySubscription {
    async fn insert_subscription(&self) -> Result<()> {
        self.store.lock().0.insert_subscription(&self.options)
    }

    async fn listen(&self) -> Result<Wakeups> {
        wakeups(Arc::clone(&self.store), Arc::clone(&self.consumer.subscription))
    }

    async fn fetch_pending(&self) -> Result<Option<Delivery>> {
        self.store.claim(&self.consumer)
    }
}

impl fmt::Debug for MemorySubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySubscription").field("options", &self.options).finish_non_exhaustive()
    }
}
