//! The queue through sqlx.

use async_trait::async_trait;
use pgqueue_conformance::Uncommitted;
use pgqueue_core::{NewMessage, Result};
use pgqueue_sqlx::{PgQueue, Sqlx};
use sqlx::{PgPool, Postgres, Transaction};

use crate::{harness::Backend, network::broken};

pub(crate) struct ThroughSqlx;

#[async_trait]
impl Backend for ThroughSqlx {
    type Client = Sqlx;

    async fn publish_uncommitted(
        queue: &PgQueue,
        url: &str,
        topic: &str,
        messages: Vec<NewMessage>,
    ) -> Result<Box<dyn Uncommitted>> {
        let pool = PgPool::connect(url).await.map_err(broken)?;
        let mut transaction = pool.begin().await.map_err(broken)?;
        queue.publish_in(&mut transaction, topic, messages).await?;
        Ok(Box::new(Open(transaction)))
    }
}

struct Open(Transaction<'static, Postgres>);

#[async_trait]
impl Uncommitted for Open {
    async fn commit(self: Box<Self>) -> Result<()> {
        self.0.commit().await.map_err(broken)
    }

    async fn rollback(self: Box<Self>) -> Result<()> {
        self.0.rollback().await.map_err(broken)
    }
}
