//! The drivers this program can run on. All the rest of it knows only the traits.

use std::sync::Arc;

use anyhow::ensure;
use async_trait::async_trait;
use clap::ValueEnum;
use pgqueue_core::{Publisher, Result, Subscription, SubscriptionDriver, Topic};
use pgqueue_examples::database_url;
use pgqueue_memory::MemoryQueue;
use pgqueue_postgres::{Client, PgQueue};
use pgqueue_sqlx::Sqlx;
use pgqueue_tokio_postgres::TokioPostgres;

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Driver {
    /// This process, for as long as it lives
    Memory,
    /// PostgreSQL, through tokio-postgres
    TokioPostgres,
    /// PostgreSQL, through sqlx
    Sqlx,
}

/// A queue, whichever driver keeps it.
#[async_trait]
pub(crate) trait Queue: Publisher {
    /// Deletes a topic with its subscriptions and all their messages.
    async fn delete_topic(&self, name: &str) -> Result<()>;

    /// Makes a consumer of a subscription.
    fn consumer(&self, subscription: Subscription) -> Arc<dyn SubscriptionDriver>;
}

impl Driver {
    /// Opens a queue that has the topic; on PostgreSQL in the database at `url` or, without one, in a private server.
    pub(crate) async fn open(self, url: Option<String>, topic: Topic) -> anyhow::Result<Box<dyn Queue>> {
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

    fn consumer(&self, subscription: Subscription) -> Arc<dyn SubscriptionDriver> {
        Arc::new(self.subscription(subscription))
    }
}

#[async_trait]
impl<C: Client> Queue for PgQueue<C> {
    async fn delete_topic(&self, name: &str) -> Result<()> {
        self.delete_topic(name).await
    }

    fn consumer(&self, subscription: Subscription) -> Arc<dyn SubscriptionDriver> {
        Arc::new(self.subscription(subscription))
    }
}
