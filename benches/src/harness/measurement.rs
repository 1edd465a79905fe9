//! [`Measurement`]: one go of one contender, in a database of its own.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use pgqueue_core::{NewMessage, Publisher, Retention, Subscription, Topic};
use pgqueue_postgres::PgQueue;
use pgqueue_testserver::Server;

use super::{meter::Meter, payload};
use crate::drivers::{Argument, Driver, Peer};

/// The topic of every scenario.
pub(crate) const TOPIC: &str = "bench";

/// How many connections the queue's pool has unless more is needed: what its clients have by themselves.
const CONNECTIONS: usize = 16;

/// How many messages are loaded at a time.
const LOAD: usize = 1000;

/// One go of a contender, in a database of its own on the private server.
#[derive(Debug)]
pub struct Measurement {
    server: Arc<Server>,
    database: String,
    /// For how long to publish, where time is the measure.
    pub duration: Duration,
    is_warm_up: bool,
}

impl Measurement {
    pub(super) fn new(server: Arc<Server>, database: String, duration: Duration, is_warm_up: bool) -> Self {
        Self { server, database, duration, is_warm_up }
    }

    /// So many, or fewer in a warm-up.
    pub fn scaled(&self, count: usize) -> usize {
        if self.is_warm_up { (count / 20).max(1) } else { count }
    }

    /// Where to connect to.
    pub fn url(&self) -> String {
        self.server.url(&self.database)
    }

    /// Leaves a replication slot that holds vacuum's horizon.
    pub(crate) async fn leave_slot(&self, name: &str) -> Result<()> {
        Ok(self.server.leave_slot(name).await?)
    }

    /// Whether the sample is thrown away.
    pub(crate) fn is_warm_up(&self) -> bool {
        self.is_warm_up
    }

    /// Runs SQL, outside of what is timed.
    ///
    /// # Errors
    ///
    /// When the server refuses it.
    pub async fn sql(&self, text: &str) -> Result<String> {
        self.server.sql(&self.database, text).await.with_context(|| format!("in {text}"))
    }

    /// Runs SQL that answers with one number.
    ///
    /// # Errors
    ///
    /// When the server refuses it, or answers otherwise.
    pub async fn number(&self, text: &str) -> Result<usize> {
        let answer = self.sql(text).await?;
        answer.trim().parse().with_context(|| format!("{answer:?} is no number"))
    }

    /// Lets vacuum and a checkpoint have happened before the clock starts.
    ///
    /// # Errors
    ///
    /// When the server refuses.
    pub async fn settle(&self) -> Result<()> {
        self.sql("vacuum analyze").await?;
        self.sql("checkpoint").await.map(drop)
    }

    /// Starts the clock, and counts what is spent until it is stopped.
    ///
    /// # Errors
    ///
    /// When the server does not say what it has counted.
    pub async fn meter(&self) -> Result<Meter> {
        Meter::start(Arc::clone(&self.server), &self.database).await
    }

    /// Makes a queue with the topic, on at least so many connections.
    pub(crate) async fn queue<D: Driver>(&self, connections: usize) -> Result<PgQueue<D::Client>> {
        let queue = self.stocked_queue::<D>(connections).await?;
        queue.migrate().await?;
        queue.create_topic(Topic::new(TOPIC)).await?;
        Ok(queue)
    }

    /// The queue that the database has, on at least so many connections.
    pub(crate) async fn stocked_queue<D: Driver>(&self, connections: usize) -> Result<PgQueue<D::Client>> {
        Ok(PgQueue::new(D::client(&self.url(), connections.max(CONNECTIONS)).await?))
    }

    /// Makes a queue with a topic that keeps messages 0 to `count`, as `make` makes them.
    pub(crate) async fn stock<D: Driver>(
        &self,
        topic: &str,
        count: usize,
        make: impl Fn(usize) -> NewMessage,
    ) -> Result<()> {
        let queue = self.stocked_queue::<D>(0).await?;
        queue.migrate().await?;
        queue.create_topic(Topic::new(topic).with_retention(Retention::everything())).await?;
        load(&queue, topic, count, make).await
    }

    /// Connects by hand.
    pub(crate) async fn peer<D: Driver>(&self) -> Result<D::Peer> {
        D::Peer::connect(&self.url()).await
    }

    /// Connects by hand, so often.
    pub(crate) async fn peers<D: Driver>(&self, count: usize) -> Result<Vec<D::Peer>> {
        stream::iter(0..count).then(|_| self.peer::<D>()).try_collect().await
    }

    /// Loads a backlog of messages 0 to `count` into the queue's topic.
    pub(crate) async fn load<D: Driver>(
        &self,
        queue: &PgQueue<D::Client>,
        topic: &str,
        count: usize,
        size: usize,
    ) -> Result<()> {
        load(queue, topic, count, |n| NewMessage::new(payload(n, size))).await
    }

    /// Loads a backlog of messages 0 to `count` into a table of one's own.
    pub(crate) async fn load_table<D: Driver>(&self, insert: &'static str, count: usize, size: usize) -> Result<()> {
        let mut peer = self.peer::<D>().await?;
        for first in (0..count).step_by(LOAD) {
            let payloads = (first..count.min(first + LOAD)).map(|n| payload(n, size));
            peer.execute(insert, &[Argument::Payloads(payloads.collect())]).await?;
        }
        Ok(())
    }

    /// Makes a subscription of the topic that nobody consumes.
    pub(crate) async fn subscribe<D: Driver>(&self, queue: &PgQueue<D::Client>, name: &str) -> Result<()> {
        Ok(queue.insert_subscription(&Subscription::new(name, TOPIC)).await?)
    }

    /// Checks that a table has exactly the messages 0 to `count`, once each.
    pub(crate) async fn check_table(&self, table: &str, count: usize) -> Result<()> {
        let rows = self.number(&format!("select count(*) from {table}")).await?;
        let different = self.number(&format!("select count(distinct payload) from {table}")).await?;
        ensure!(
            rows == count && different == count,
            "{count} were published; {table} has {rows}, {different} of them different"
        );
        Ok(())
    }
}

/// Loads a backlog of messages 0 to `count`, as `make` makes them, into the queue's topic.
pub(crate) async fn load(
    queue: &impl Publisher,
    topic: &str,
    count: usize,
    make: impl Fn(usize) -> NewMessage,
) -> Result<()> {
    for first in (0..count).step_by(LOAD) {
        queue.publish(topic, (first..count.min(first + LOAD)).map(&make).collect()).await?;
    }
    Ok(())
}
