//! [`Driver`] and [`Queue`]: what an example can run on. All the rest of it knows only the traits.

use std::sync::Arc;

use anyhow::ensure;
use async_trait::async_trait;
use clap::ValueEnum;
use pgqueue_core::{Publisher, Result, Subscription, SubscriptionDriver, Topic};
use pgqueue_memory::MemoryQueue;
use pgqueue_postgres::{Client, PgQueue};
use pgqueue_sqlx::Sqlx;
use pgqueue_tokio_postgres::TokioPostgres;

use crate::database_url;

/// What keeps the messages.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Driver {
    /// This process, for as long as it lives
    Memory,
    /// PostgreSQL, through tokio-postgres
    TokioPostgres,
    /// PostgreSQL, through sqlx
    Sqlx,
}

/// A queue, whichever driver keeps it.
#[async_trait]
pub trait Queue: Publisher {
    /// Deletes a topic with its subscriptions and all their messages.
    async fn delete_topic(&self, name: &str) -> Result<()>;

    /// Counts the messages of a subscription that are not done: they wait, or are in hand, or come again.
    async fn unsettled(&self, subscription: &str) -> Result<u64>;

    /// Makes a consumer of a subscription.
    fn consumer(&self, subscription: Subscription) -> Arc<dyn SubscriptionDriver>;
}

impl Driver {
    /// Opens a queue that has the topic; on PostgreSQL in the database at `url` or, without one, in a private server.
    ///
    /// # Errors
    /// If a URL is given for memory, the private server cannot be started, or the queue says no.
    pub async fn open(self, url: Option<String>, topic: Topic) -> anyhow::Result<Box<dyn Queue>> {
        match self {
            Self::Memory => {
                ensure!(url.is_none(), "--database-url is for the drivers tokio-postgres and sqlx");
                let queue = MemoryQueue::new();
                queue.create_topic(topic).await?;
                Ok(Box::new(queue))
            }
            Self::TokioPostgres => open_postgres::<TokioPostgres>(url, topic).await,
            Self::Sqlx => open_postgres::<Sqlx>(url, topic).await,
        }
    }
}

async fn open_postgres<C: Client>(url: Option<String>, topic: Topic) -> anyhow::Result<Box<dyn Queue>> {
    let queue = PgQueue::<C>::connect(&database_url(url).await?).await?;
    queue.migrate().await?;
    queue.create_topic(topic).await?;
    Ok(Box::new(queue))
}

#[async_trait]
impl Queue for MemoryQueue {
    async fn delete_topic(&self, name: &str) -> Result<()> {
        self.delete_topic(name).await
    }

    async fn unsettled(&self, subscription: &str) -> Result<u64> {
        Ok((self.pending(subscription)?.len() + self.in_flight(subscription)?.len()) as u64)
    }

    fn consumer(&self, subscription: Subscription) -> Arc<dyn SubscriptionDriver> {
        Arc::new(self.subscription(subscription))
    }
}

#[async_trait]
impl<C: Client> Queue for PgQueue<C> {
    async fn delete_topic(&self, name: &str) -> Result<()> {
        self.delete_topic(name).await
    }

    async fn unsettled(&self, subscription: &str) -> Result<u64> {
        let stats = self.stats(subscription).await?;
        Ok(stats.waiting + stats.in_flight + stats.retrying)
    }

    fn consumer(&self, subscription: Subscription) -> Arc<dyn SubscriptionDriver> {
        Arc::new(self.subscription(subscription))
    }
}
