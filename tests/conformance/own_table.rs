//! The kit's view of consumers over tables that a team made for itself, whatever the client. Each case has a database of its own;
//! each driver has a pool of a few connections of its own, through a proxy that can cut them.

mod publishing;
mod query;
mod rows;

use std::{
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use async_trait::async_trait;
use pgqueue_conformance::{Capabilities, Harness, Uncommitted};
use pgqueue_core::{
    BoxError, DeadLetter, Error, ErrorKind, MessageId, NewMessage, Result, Subscription, SubscriptionDriver, Topic,
};
use pgqueue_postgres::{Client, ClientError, Listener, OwnedTransaction, Parameter, PgTables, QueryDriver};
use pgqueue_testserver::Database;

use self::publishing::{Open, publish};
use crate::{
    network::{Network, Road},
    small::Small,
};

/// No keys, as a lock is on rows; no leases, as a delivery is a transaction; and no log, so nothing that looks back. Attempts
/// only where they are counted.
pub(crate) const CAPABILITIES: Capabilities = Capabilities::new()
    .with_batch()
    .with_concurrent()
    .with_dead_letters()
    .with_dedup()
    .with_delay()
    .with_disconnectable()
    .with_durable()
    .with_explicit_topics()
    .with_headers()
    .with_listeners()
    .with_readable_store()
    .with_schedule()
    .with_total_order()
    .with_transactional()
    .with_unsubscribe();

/// Three deliveries, two connections for the look for the next, and one to see when that is.
const CONNECTIONS: usize = 6;

const CREATE_TOPIC: &str = "
    insert into topics values ($1, $2 * interval '1 ms')
    on conflict (name) do update set dedup_window = excluded.dedup_window";

/// What is in hand stays until the next one unsubscribes, and belongs to nobody.
const UNSUBSCRIBE: &str = "
    with gone as (delete from subscriptions where name = $1 returning id),
    nobodys as (
      select serial from messages
      where subscription in (table gone) or subscription not in (select id from subscriptions)
      for update skip locked)
    delete from messages using nobodys where messages.serial = nobodys.serial";

const DEAD_LETTERS: &str =
    "select d.* from dead_letters d join subscriptions s on s.id = d.subscription where s.name = $1 order by d.serial";

const REDRIVE: &str = "
    with back as (delete from dead_letters d using subscriptions s where s.id = d.subscription and s.name = $1 returning d.*)
    insert into messages (subscription, id, topic, payload, key, kind, tags, headers, published_at, due_at)
    select subscription, id, topic, payload, key, kind, tags, headers, published_at, now() from back
    returning id";

/// Whether deliveries are counted.
#[derive(Clone, Copy)]
pub(crate) enum Counting {
    On,
    Off,
}

struct OwnTable<C: Client> {
    network: Network,
    tables: PgTables<C>,
    counting: Counting,
    /// The drivers that were made, and who listens for them. Weak: the kit drops one to stop its consumer.
    made: Mutex<Vec<(Weak<QueryDriver<C>>, Listener)>>,
}

pub(crate) async fn make<C: Small>(counting: Counting) -> Result<Box<dyn Harness>> {
    let network = Network::start(Database::create().await.map_err(broken)?, Road::Direct).await?;
    let tables = PgTables::<C>::new(C::of(&network.uncut_url(), CONNECTIONS));
    tables.client().run_script(include_str!("own_table/schema.sql")).await.map_err(refused)?;
    Ok(Box::new(OwnTable::<C> { network, tables, counting, made: Mutex::default() }))
}

fn broken(error: impl Into<BoxError>) -> Error {
    Error::new(ErrorKind::Fatal, "the tables under test").with_source(error)
}

fn refused(error: ClientError) -> Error {
    match error {
        ClientError::Unreachable(source)
        | ClientError::PoolExhausted(source)
        | ClientError::Lost(source)
        | ClientError::Refused { source, .. }
        | ClientError::Unusable(source) => broken(source),
    }
}

impl<C: Client> OwnTable<C> {
    async fn ask(&self, statement: &str, bound: &[Parameter]) -> Result<Vec<C::Row>> {
        self.tables.client().query(statement, bound).await.map_err(refused)
    }
}

#[async_trait]
impl<C: Small> Harness for OwnTable<C> {
    async fn create_topic(&self, topic: Topic) -> Result<()> {
        let window = i64::try_from(topic.dedup_window().as_millis()).map_err(broken)?;
        self.ask(CREATE_TOPIC, &[topic.name().into(), window.into()]).await.map(drop)
    }

    async fn driver(&self, subscription: Subscription) -> Result<Arc<dyn SubscriptionDriver>> {
        let tables = PgTables::<C>::new(C::of(&self.network.url(), CONNECTIONS));
        let driver = Arc::new(tables.query(query::pending::<C>(&subscription, self.counting)?));
        let mut made = self.made.lock().unwrap();
        // A listener keeps its pool.
        made.retain(|(driver, _)| driver.strong_count() > 0);
        made.push((Arc::downgrade(&driver), tables.listener().clone()));
        Ok(driver)
    }

    async fn publish(&self, topic: &str, messages: Vec<NewMessage>) -> Result<Vec<MessageId>> {
        let (transaction, ids) = publish(self.tables.client(), topic, messages).await?;
        transaction.commit().await.map_err(refused)?;
        Ok(ids)
    }

    async fn publish_uncommitted(&self, topic: &str, messages: Vec<NewMessage>) -> Result<Box<dyn Uncommitted>> {
        let (transaction, _) = publish(self.tables.client(), topic, messages).await?;
        Ok(Box::new(Open(transaction)))
    }

    async fn disconnect(&self) -> Result<()> {
        self.network.disconnect().await
    }

    async fn reconnect(&self) -> Result<()> {
        self.network.reconnect().await
    }

    async fn reopen(&self) -> Result<()> {
        self.network.end_connections().await
    }

    async fn unsubscribe(&self, subscription: &str) -> Result<()> {
        self.ask(UNSUBSCRIBE, &[subscription.into()]).await.map(drop)
    }

    async fn dead_letters(&self, subscription: &str) -> Result<Vec<DeadLetter>> {
        let letters = self.ask(DEAD_LETTERS, &[subscription.into()]).await?;
        letters.iter().map(|row| rows::dead_letter(row).map_err(broken)).collect()
    }

    async fn redrive(&self, subscription: &str) -> Result<usize> {
        Ok(self.ask(REDRIVE, &[subscription.into()]).await?.len())
    }

    async fn listeners(&self) -> Result<usize> {
        let made = self.made.lock().unwrap();
        let alive = made.iter().filter(|(driver, _)| driver.strong_count() > 0);
        Ok(alive.map(|(_, listener)| listener.subscribers()).sum())
    }

    async fn stored_payload(&self, id: &MessageId) -> Result<String> {
        let look = format!("select convert_from(payload, 'UTF8') from messages where id = {id}");
        self.network.database().sql(&look).await.map_err(broken)
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }

    fn quiet(&self) -> Duration {
        Duration::from_millis(400)
    }
}
