//! The kit's view of a queue on PostgreSQL, whatever the client. Each case has a database of its own; each driver has connections
//! of its own, through a proxy that can cut them.

use std::{
    marker::PhantomData,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use async_trait::async_trait;
use pgqueue_conformance::{Capabilities, Harness, Uncommitted};
use pgqueue_core::{
    CheckpointStore, DeadLetter, Error, ErrorKind, MessageId, NewMessage, Publisher, Result, Start, Subscription,
    SubscriptionDriver, Topic,
};
use pgqueue_postgres::{Client, PgQueue, PgSubscription};
use pgqueue_testserver::{Database, Proxy};

/// Everything but a clock that can be paused.
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
    .with_stable_total_order()
    .with_total_order()
    .with_transactional()
    .with_unsubscribe();

/// What differs between the clients.
#[async_trait]
pub(crate) trait Backend: Send + Sync + 'static {
    type Client: Client;

    /// Publishes inside of a transaction that stays open.
    async fn publish_uncommitted(
        queue: &PgQueue<Self::Client>,
        url: &str,
        topic: &str,
        messages: Vec<NewMessage>,
    ) -> Result<Box<dyn Uncommitted>>;
}

struct Postgres<B: Backend> {
    database: Database,
    queue: PgQueue<B::Client>,
    drivers: Mutex<Drivers<B::Client>>,
    backend: PhantomData<B>,
}

struct Drivers<C: Client> {
    /// Weak: the kit drops a driver to stop its consumer.
    made: Vec<Weak<PgSubscription<C>>>,
    /// Through which they connect; the next through the last.
    open: Vec<Arc<Proxy>>,
    /// Those that were cut.
    cut: Vec<Arc<Proxy>>,
}

pub(crate) async fn make<B: Backend>() -> Result<Box<dyn Harness>> {
    let database = Database::create().await.map_err(broken)?;
    let queue = PgQueue::connect(&database.url()).await?;
    queue.migrate().await?;
    let proxy = Arc::new(Proxy::start(database.server().port()).await.map_err(broken)?);
    let drivers = Mutex::new(Drivers { made: Vec::new(), open: vec![proxy], cut: Vec::new() });
    Ok(Box::new(Postgres::<B> { database, queue, drivers, backend: PhantomData }))
}

/// What the test's own server could not do.
pub(crate) fn broken(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Fatal, "the server under test").with_source(error)
}

impl<B: Backend> Postgres<B> {
    /// The database as it is reached through a proxy.
    fn url(&self, proxy: &Proxy) -> String {
        let port = |port: u16| format!(":{port}/");
        self.database.url().replace(&port(self.database.server().port()), &port(proxy.port()))
    }
}

#[async_trait]
impl<B: Backend> Harness for Postgres<B> {
    async fn create_topic(&self, topic: Topic) -> Result<()> {
        self.queue.create_topic(topic).await
    }

    async fn driver(&self, subscription: Subscription) -> Result<Arc<dyn SubscriptionDriver>> {
        let proxy = Arc::clone(self.drivers.lock().unwrap().open.last().unwrap());
        let queue = PgQueue::<B::Client>::connect(&self.url(&proxy)).await?;
        let driver = Arc::new(queue.subscription(subscription));
        self.drivers.lock().unwrap().made.push(Arc::downgrade(&driver));
        Ok(driver)
    }

    async fn publish(&self, topic: &str, messages: Vec<NewMessage>) -> Result<Vec<MessageId>> {
        self.queue.publish(topic, messages).await
    }

    async fn publish_uncommitted(&self, topic: &str, messages: Vec<NewMessage>) -> Result<Box<dyn Uncommitted>> {
        B::publish_uncommitted(&self.queue, &self.database.url(), topic, messages).await
    }

    async fn disconnect(&self) -> Result<()> {
        let fresh = Arc::new(Proxy::start(self.database.server().port()).await.map_err(broken)?);
        let old = {
            let mut drivers = self.drivers.lock().unwrap();
            let old = std::mem::replace(&mut drivers.open, vec![fresh]);
            drivers.cut.extend_from_slice(&old);
            old
        };
        for proxy in old {
            proxy.cut().await;
        }
        Ok(())
    }

    async fn reconnect(&self) -> Result<()> {
        let cut = std::mem::take(&mut self.drivers.lock().unwrap().cut);
        for proxy in &cut {
            proxy.restore().await.map_err(broken)?;
        }
        self.drivers.lock().unwrap().open.splice(..0, cut);
        Ok(())
    }

    /// Ends every connection at the server's side; what a crash of the server itself does has tests of its own.
    async fn reopen(&self) -> Result<()> {
        self.crash_consumers().await?;
        let name = self.database.name();
        let others = format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'");
        self.database.server().sql("postgres", &others).await.map_err(broken)?;
        Ok(())
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
        // Over connections of its own, as reopening ends all that there are.
        Ok(Arc::new(PgQueue::<B::Client>::connect(&self.database.url()).await?))
    }

    async fn expire_leases(&self) -> Result<()> {
        for subscription in self.queue.subscriptions().await? {
            self.queue.expire_leases(subscription.name()).await?;
        }
        Ok(())
    }

    async fn crash_consumers(&self) -> Result<()> {
        for driver in self.drivers.lock().unwrap().made.drain(..) {
            if let Some(driver) = driver.upgrade() {
                driver.crash();
            }
        }
        Ok(())
    }

    async fn listeners(&self) -> Result<usize> {
        let drivers = self.drivers.lock().unwrap();
        let alive = drivers.made.iter().filter_map(Weak::upgrade);
        Ok(alive.map(|driver| driver.queue().listener().subscribers()).sum())
    }

    async fn stored_payload(&self, id: &MessageId) -> Result<String> {
        let look = format!("select payload from pgqueue.message where message_id = '{id}'");
        self.database.sql(&look).await.map_err(broken)
    }

    fn quiet(&self) -> Duration {
        Duration::from_millis(400)
    }
}
