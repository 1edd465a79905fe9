//! The queue through tokio-postgres.

use async_trait::async_trait;
use pgqueue_conformance::Uncommitted;
use pgqueue_core::{NewMessage, Result};
use pgqueue_tokio_postgres::{PgQueue, TokioPostgres};
use tokio::{sync::oneshot, task::JoinHandle};
use tokio_postgres::NoTls;

use crate::{harness::Backend, network::broken};

pub(crate) struct ThroughTokioPostgres;

#[async_trait]
impl Backend for ThroughTokioPostgres {
    type Client = TokioPostgres;

    async fn publish_uncommitted(
        queue: &PgQueue,
        url: &str,
        topic: &str,
        messages: Vec<NewMessage>,
    ) -> Result<Box<dyn Uncommitted>> {
        let (mut client, connection) = tokio_postgres::connect(url, NoTls).await.map_err(broken)?;
        tokio::spawn(connection);
        let (published, is_published) = oneshot::channel();
        let (commit, is_committed) = oneshot::channel::<bool>();
        let (queue, topic) = (queue.clone(), topic.to_owned());
        // The transaction borrows its client, so both live in a task.
        let ended = tokio::spawn(async move {
            let mut transaction = client.transaction().await.map_err(broken)?;
            published.send(queue.publish_in(&mut transaction, &topic, messages).await.map(drop)).ok();
            match is_committed.await {
                Ok(true) => transaction.commit().await.map_err(broken),
                _ => transaction.rollback().await.map_err(broken),
            }
        });
        is_published.await.map_err(broken)??;
        Ok(Box::new(Open { commit, ended }))
    }
}

struct Open {
    commit: oneshot::Sender<bool>,
    ended: JoinHandle<Result<()>>,
}

#[async_trait]
impl Uncommitted for Open {
    async fn commit(self: Box<Self>) -> Result<()> {
        self.commit.send(true).ok();
        self.ended.await.map_err(broken)?
    }

    async fn rollback(self: Box<Self>) -> Result<()> {
        self.commit.send(false).ok();
        self.ended.await.map_err(broken)?
    }
}
