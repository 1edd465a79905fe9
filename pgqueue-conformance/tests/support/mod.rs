//! A store with every capability but stable total order: the memory driver behind connections that can be cut, with transactions, and with
//! consumers that stay behind when it is reopened.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use async_trait::async_trait;
use futures::{future::BoxFuture, stream};
use pgqueue_conformance::{Capabilities, Harness, Uncommitted};
use pgqueue_core::{
    Ack, Acker, CheckpointStore, DeadLetter, Delivery, Error, ErrorKind, MessageId, NewMessage, Publisher, Result,
    Start, Subscription, SubscriptionDriver, Topic, Wakeups,
};
use pgqueue_memory::{MemoryQueue, MemorySubscription};
use tokio::sync::watch;

pub(crate) const CAPABILITIES: Capabilities = Capabilities::new()
    .with_attempts()
    .with_batch()
    .with_checkpoints()
    .with_concurrent()
    .with_dead_letters()
    .with_dedup()
    .with_delay()
    .with_disconnectable()
    .with_durable()
    .with_explicit_topics()
    .with_headers()
    .with_keys()
    .with_leases()
    .with_listeners()
    .with_readable_store()
    .with_replay()
    .with_schedule()
    .with_seek()
    .with_selectors()
    .with_single_active()
    .with_total_order()
    .with_transactional()
    .with_unsubscribe();

#[derive(Default)]
pub(crate) struct SimulatedStore {
    queue: MemoryQueue,
    /// Weak: the kit drops a driver to stop its process.
    processes: Mutex<Vec<Weak<Process>>>,
    /// Those whose connections are cut, as the store does not hear of it if they stop meanwhile.
    cut: Mutex<Vec<Arc<Process>>>,
}

impl SimulatedStore {
    /// All that run.
    fn processes(&self) -> Vec<Arc<Process>> {
        lock(&self.processes).iter().filter_map(Weak::upgrade).collect()
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Harness for SimulatedStore {
    async fn create_topic(&self, topic: Topic) -> Result<()> {
        self.queue.create_topic(topic).await
    }

    async fn driver(&self, subscription: Subscription) -> Result<Arc<dyn SubscriptionDriver>> {
        let process = Arc::new(Process {
            consumer: self.queue.subscription(subscription),
            line: watch::Sender::new(Line::Up),
            unreleased: Mutex::default(),
        });
        lock(&self.processes).push(Arc::downgrade(&process));
        Ok(Arc::new(Remote(process)))
    }

    async fn publish(&self, topic: &str, messages: Vec<NewMessage>) -> Result<Vec<MessageId>> {
        self.queue.publish(topic, messages).await
    }

    async fn publish_uncommitted(&self, topic: &str, messages: Vec<NewMessage>) -> Result<Box<dyn Uncommitted>> {
        Ok(Box::new(Transaction { queue: self.queue.clone(), topic: topic.to_owned(), messages }))
    }

    async fn disconnect(&self) -> Result<()> {
        let processes = self.processes();
        processes.iter().for_each(|process| process.cut());
        *lock(&self.cut) = processes;
        Ok(())
    }

    async fn reconnect(&self) -> Result<()> {
        let cut = std::mem::take(&mut *lock(&self.cut));
        cut.iter().for_each(|process| process.mend());
        Ok(())
    }

    /// The queue's memory is the storage, and only its consumers die.
    async fn reopen(&self) -> Result<()> {
        self.crash_consumers().await
    }

    async fn unsubscribe(&self, subscription: &str) -> Result<()> {
        self.queue.delete_subscription(subscription).await
    }

    async fn dead_letters(&self, subscription: &str) -> Result<Vec<DeadLetter>> {
        self.queue.dead_letters(subscription).await
    }

    async fn redrive(&self, subscription: &str) -> Result<usize> {
        self.queue.redrive(subscription).await
    }

    async fn seek(&self, subscription: &str, start: &Start) -> Result<()> {
        self.queue.seek(subscription, start).await
    }

    async fn checkpoints(&self) -> Result<Arc<dyn CheckpointStore>> {
        Ok(Arc::new(self.queue.clone()))
    }

    async fn expire_leases(&self) -> Result<()> {
        for subscription in self.queue.subscriptions().await? {
            self.queue.expire_leases(subscription.name())?;
        }
        Ok(())
    }

    async fn crash_consumers(&self) -> Result<()> {
        self.processes().iter().for_each(|process| process.kill());
        Ok(())
    }

    async fn listeners(&self) -> Result<usize> {
        let subscriptions = self.queue.subscriptions().await?;
        subscriptions.iter().map(|subscription| self.queue.listeners(subscription.name())).sum()
    }

    async fn stored_payload(&self, id: &MessageId) -> Result<String> {
        for subscription in self.queue.subscriptions().await? {
            let pending = self.queue.pending(subscription.name())?;
            if let Some(message) = pending.iter().find(|message| message.id() == id) {
                return Ok(String::from_utf8_lossy(message.payload()).into_owned());
            }
        }
        Err(Error::new(ErrorKind::NotFound, format!("message {id} is nowhere")))
    }
}

/// A consumer, and its connection to the store.
struct Process {
    consumer: MemorySubscription,
    line: watch::Sender<Line>,
    /// Deliveries that ended while the line was cut: the store hears of it when the line is back.
    unreleased: Mutex<Vec<Box<dyn Acker>>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Line {
    Up,
    Cut,
    /// The process was killed.
    Dead,
}

impl Process {
    fn cut(&self) {
        self.consumer.pause_heartbeat();
        self.line.send_replace(Line::Cut);
    }

    fn mend(&self) {
        if self.line.send_if_modified(|line| std::mem::replace(line, Line::Up) == Line::Cut) {
            self.consumer.resume_heartbeat();
            lock(&self.unreleased).clear();
        }
    }

    fn kill(&self) {
        self.consumer.crash();
        self.line.send_replace(Line::Dead);
    }

    fn reach(&self) -> Result<()> {
        if *self.line.borrow() == Line::Up { Ok(()) } else { Err(connection_lost()) }
    }
}

fn connection_lost() -> Error {
    Error::new(ErrorKind::Connection, "the simulated connection is lost")
}

/// A driver whose every call goes over its process's line.
struct Remote(Arc<Process>);

#[async_trait]
impl SubscriptionDriver for Remote {
    async fn insert_subscription(&self) -> Result<()> {
        self.0.reach()?;
        self.0.consumer.insert_subscription().await
    }

    async fn listen(&self) -> Result<Wakeups> {
        self.0.reach()?;
        let wakeups = self.0.consumer.listen().await?;
        let mut line = self.0.line.subscribe();
        let cut = stream::once(async move {
            line.wait_for(|line| *line != Line::Up).await.ok();
            Err(connection_lost())
        });
        Ok(Box::pin(stream::select(wakeups, cut)))
    }

    async fn fetch_pending(&self) -> Result<Option<Delivery>> {
        self.0.reach()?;
        let remote = |acker| RemoteAcker { acker: Some(acker), process: Arc::clone(&self.0) };
        Ok(self.0.consumer.fetch_pending().await?.map(|delivery| delivery.map_acker(remote)))
    }
}

struct RemoteAcker {
    /// `None` once it is settled.
    acker: Option<Box<dyn Acker>>,
    process: Arc<Process>,
}

#[async_trait]
impl Acker for RemoteAcker {
    async fn settle(mut self: Box<Self>, ack: Ack) -> Result<()> {
        self.process.reach()?;
        match self.acker.take() {
            Some(acker) => acker.settle(ack).await,
            None => Ok(()),
        }
    }

    fn lease_lost(&self) -> BoxFuture<'static, ()> {
        self.acker.as_ref().map_or_else(|| Box::pin(std::future::ready(())) as _, |acker| acker.lease_lost())
    }
}

impl Drop for RemoteAcker {
    fn drop(&mut self) {
        if *self.process.line.borrow() == Line::Cut {
            lock(&self.process.unreleased).extend(self.acker.take());
        }
    }
}

/// Messages that are published when they are committed.
struct Transaction {
    queue: MemoryQueue,
    topic: String,
    messages: Vec<NewMessage>,
}

#[async_trait]
impl Uncommitted for Transaction {
    async fn commit(self: Box<Self>) -> Result<()> {
        self.queue.publish(&self.topic, self.messages).await.map(drop)
    }

    async fn rollback(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
