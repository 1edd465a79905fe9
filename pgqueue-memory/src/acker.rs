//! [`MemoryAcker`]: the lease behind a delivery.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::future::BoxFuture;
use pgqueue_core::{Ack, Acker, Requeue, Result};

use crate::{consumer::Consumer, lease::LeaseId, store::Store};

pub(crate) struct MemoryAcker {
    store: Arc<Store>,
    consumer: Arc<Consumer>,
    lease: LeaseId,
    settled: bool,
}

impl MemoryAcker {
    pub(crate) fn new(store: Arc<Store>, consumer: Arc<Consumer>, lease: LeaseId) -> Self {
        Self { store, consumer, lease, settled: false }
    }

    fn answer(&mut self, ack: Ack) -> Result<()> {
        self.settled = true;
        self.store.settle(self.consumer.subscription(), self.lease, ack)
    }
}

#[async_trait]
impl Acker for MemoryAcker {
    async fn settle(mut self: Box<Self>, ack: Ack) -> Result<()> {
        self.answer(ack)
    }

    fn lease_lost(&self) -> BoxFuture<'static, ()> {
        let (store, consumer, lease) = (Arc::clone(&self.store), Arc::clone(&self.consumer), self.lease);
        Box::pin(async move { store.lease_lost(consumer.subscription(), lease).await })
    }
}

impl Drop for MemoryAcker {
    fn drop(&mut self) {
        if self.settled || self.consumer.has_crashed() {
            return;
        }
        let requeue = Requeue::default().with_delay(Duration::ZERO).with_reason("dropped unsettled");
        self.answer(Ack::Requeue(requeue)).ok(); // if the lease is gone, there is nothing to release
    }
}
