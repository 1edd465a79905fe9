//! The drivers this program can run on. All the rest of it knows only the traits.

use std::sync::Arc;

use clap::ValueEnum;
use pgqueue_core::{Publisher, Result, Subscription, SubscriptionDriver, Topic};
use pgqueue_memory::MemoryQueue;

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Driver {
    /// This process, for as long as it lives
    Memory,
}

/// A queue, whichever driver keeps it.
pub(crate) trait Queue: Publisher {
    /// Makes a consumer of a subscription.
    fn consumer(&self, subscription: Subscription) -> Arc<dyn SubscriptionDriver>;
}

impl Driver {
    /// Opens a queue that has the topic.
    pub(crate) async fn open(self, topic: Topic) -> Result<Box<dyn Queue>> {
        match self {
            Self::Memory => {
                let queue = MemoryQueue::new();
                queue.create_topic(topic).await?;
                Ok(Box::new(queue))
            }
        }
    }
}

impl Queue for MemoryQueue {
    fn consumer(&self, subscription: Subscription) -> Arc<dyn SubscriptionDriver> {
        Arc::new(self.subscription(subscription))
    }
}
