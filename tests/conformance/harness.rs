//! The kit's view of a queue on PostgreSQL, whatever the client. Each case has a database of its own; each driver has connections
//! of its own, through a proxy that can cut them; and between that and the server there may be a pooler in transaction mode.

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
use pgqueue_postgres::{Options, PgQueue, PgSubscription};
use pgqueue_tests::migrated;

use crate::{
    network::{Network, Road, broken},
    small::Small,
};

/// Everything but a clock that can be paused; and those who listen can be counted where there are some.
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
    type Client: Small;

    /// Publishes inside of a transaction that stays open.
    async fn publish_uncommitted(
        queue: &PgQueue<Self::Client>,
        url: &str,
        topic: &str,
        messages: Vec<NewMessage>,
    ) -> Result<Box<dyn Uncommitted>>;
}

/// How many connections a driver has. Each that is new reads and plans the schema's functions, which is most of what a case costs.
const CONNECTIONS: usize = 3;

/// How many there are to a pooler, which has sessions at hand.
const TO_POOLER: usize = 16;

/// How often consumers look that nobody can ring for.
const POLL: Duration = Duration::from_millis(100);

struct Postgres<B: Backend> {
    road: Road,
    network: Network,
    queue: PgQueue<B::Client>,
    /// The drivers that were made. Weak: the kit drops one to stop its consumer.
    made: Mutex<Vec<Weak<PgSubscription<B::Client>>>>,
    backend: PhantomData<B>,
}

pub(crate) async fn make<B: Backend>(road: Road) -> Result<Box<dyn Harness>> {
    let database = migrated::<B::Client>().await;
    let database = database.map_err(|error| Error::new(ErrorKind::Fatal, error.to_string()))?;
    let network = Network::start(database, road).await?;
    let queue = connect::<B>(road, &network.uncut_url()).await?;
    Ok(Box::new(Postgres::<B> { road, network, queue, made: Mutex::default(), backend: PhantomData }))
}

async fn connect<B: Backend>(road: Road, url: &str) -> Result<PgQueue<B::Client>> {
    match road {
        Road::Direct => Ok(PgQueue::new(B::Client::of(url, CONNECTIONS))),
        Road::Pooler(_) => {
            PgQueue::new(B::Client::behind_pooler(url, TO_POOLER)).with_options(Options::new().with_poll_interval(POLL))
        }
    }
}

#[async_trait]
impl<B: Backend> Harness for Postgres<B> {
    async fn create_topic(&self, topic: Topic) -> Result<()> {
        self.queue.create_topic(topic).await
    }

    async fn driver(&self, subscription: Subscription) -> Result<Arc<dyn SubscriptionDriver>> {
        let queue = connect::<B>(self.road, &self.network.url()).await?;
        let driver = Arc::new(queue.subscription(subscription));
        self.made.lock().unwrap().push(Arc::downgrade(&driver));
        Ok(driver)
    }

    async fn publish(&self, topic: &str, messages: Vec<NewMessage>) -> Result<Vec<MessageId>> {
        self.queue.publish(topic, messages).await
    }

    async fn publish_uncommitted(&self, topic: &str, messages: Vec<NewMessage>) -> Result<Box<dyn Uncommitted>> {
        B::publish_uncommitted(&self.queue, &self.network.uncut_url(), topic, messages).await
    }

    async fn disconnect(&self) -> Result<()> {
        self.network.disconnect().await
    }

    async fn reconnect(&self) -> Result<()> {
        self.network.reconnect().await
    }

    async fn reopen(&self) -> Result<()> {
        self.crash_consumers().await?;
        self.network.end_connections().await
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
        Ok(Arc::new(connect::<B>(self.road, &self.network.uncut_url()).await?))
    }

    async fn expire_leases(&self) -> Result<()> {
        for subscription in self.queue.subscriptions().await? {
            self.queue.expire_leases(subscription.name()).await?;
        }
        Ok(())
    }

    async fn crash_consumers(&self) -> Result<()> {
        for driver in self.made.lock().unwrap().drain(..) {
            if let Some(driver) = driver.upgrade() {
                driver.crash();
            }
        }
        Ok(())
    }

    async fn listeners(&self) -> Result<usize> {
        let made = self.made.lock().unwrap();
        let alive = made.iter().filter_map(Weak::upgrade);
        Ok(alive.map(|driver| driver.queue().listener().subscribers()).sum())
    }

    async fn stored_payload(&self, id: &MessageId) -> Result<String> {
        let look = format!("select payload from pgqueue.message where message_id = '{id}'");
        self.network.database().sql(&look).await.map_err(broken)
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }

    fn quiet(&self) -> Duration {
        Duration::from_millis(400)
    }
}
