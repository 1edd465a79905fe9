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
/// [`pause_heartbeat`](Self::pause_heartbeat) and [`crash`](Self::crash) simulate one that is frozen or killed. It lives from
/// its first fetch until it is dropped, or has been silent for the whole [`Subscription::lease`].
pub struct MemorySubscription {
    store: Arc<Store>,
    consumer: Arc<Consumer>,
}

/// What a consumer and its deliveries share.
pub(crate) struct Consumer {
    pub(crate) id: ConsumerId,
    /// The subscription it wants; another of the same name is none of its business.
    pub(crate) wanted: Subscription,
    /// The subscription's.
    pub(crate) name: Arc<str>,
    /// Whether it does not beat. Changes under the store's lock only.
    silent: AtomicBool,
    crashed: AtomicBool,
}

impl Consumer {
    pub(crate) fn subscription(&self) -> &str {
        self.wanted.name()
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    pub(crate) fn has_crashed(&self) -> bool {
        self.crashed.load(Ordering::Relaxed)
    }
}

impl MemorySubscription {
    pub(crate) fn new(store: Arc<Store>, wanted: Subscription) -> Self {
        static LAST_ID: AtomicU64 = AtomicU64::new(0);
        let id = LAST_ID.fetch_add(1, Ordering::Relaxed);
        let name = wanted.name().into();
        let consumer = Consumer { id, wanted, name, silent: AtomicBool::new(false), crashed: AtomicBool::new(false) };
        Self { store, consumer: Arc::new(consumer) }
    }

    /// Stops renewing this consumer's leases, as when its process is frozen. They end after
    /// [`Subscription::lease`] unless the heartbeat [resumes](Self::resume_heartbeat) before; what it settles after that is
    /// refused.
    pub fn pause_heartbeat(&self) {
        self.set_beating(false);
    }

    /// Renews the leases that this consumer still has, from now on. A consumer that [crashed](Self::crash) stays silent.
    pub fn resume_heartbeat(&self) {
        self.set_beating(!self.consumer.has_crashed());
    }

    /// Lets this consumer die as its process would: its leases are not renewed, and dropping its deliveries releases
    /// nothing. They go to others after [`Subscription::lease`].
    pub fn crash(&self) {
        self.consumer.crashed.store(true, Ordering::Relaxed);
        self.set_beating(false);
    }

    fn set_beating(&self, beating: bool) {
        let (mut state, now) = self.store.lock();
        // First, so that leases which ended while it was silent stay lost.
        let subscription = state.advance(self.consumer.subscription(), now);
        let was_silent = self.consumer.silent.swap(!beating, Ordering::Relaxed);
        // Who was silent before is not heard later for falling silent again.
        if let (Ok(subscription), true) = (subscription, was_silent == beating) {
            subscription.set_beating(self.consumer.id, beating, now);
        }
    }
}

/// Lets another consumer take over where one has all, once what this one holds is settled or dropped.
impl Drop for MemorySubscription {
    fn drop(&mut self) {
        if self.consumer.has_crashed() {
            return;
        }
        let (mut state, now) = self.store.lock();
        if let Ok(subscription) = state.advance(self.consumer.subscription(), now) {
            subscription.leave(self.consumer.id);
        }
    }
}

#[async_trait]
impl SubscriptionDriver for MemorySubscription {
    async fn insert_subscription(&self) -> Result<()> {
        self.store.insert_subscription(&self.consumer.wanted)
    }

    async fn listen(&self) -> Result<Wakeups> {
        wakeups(Arc::clone(&self.store), Arc::clone(&self.consumer))
    }

    async fn fetch_pending(&self) -> Result<Option<Delivery>> {
        self.store.claim(&self.consumer)
    }
}

impl fmt::Debug for MemorySubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySubscription").field("wanted", &self.consumer.wanted).finish_non_exhaustive()
    }
}
