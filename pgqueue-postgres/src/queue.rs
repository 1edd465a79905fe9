//! [`PgQueue`]: the queue itself.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use pgqueue_core::{
    DeadLetter, Delivery, Error, ErrorKind, HorizonHolder, Laggards, MessageId, NewMessage, Operation, Publisher,
    Result, Retention, Start, Subscription, SubscriptionStats, Topic, telemetry,
};
use tokio::sync::watch;

use crate::{
    Client, Listener, Options, Parameter, PgSubscription, PgTables, Transaction,
    coalescing::{self, Coalescing},
    consumer::{PgAcker, Pulse, Turns},
    error::{About, repeatable, unrepeatable, within},
    message, migrate, publishing, statement, stats, subscriptions,
    value::{RowExt, millis},
};

/// A queue on PostgreSQL: topics, subscriptions and their messages, in a schema of its own (`pgqueue`).
///
/// Cloning makes another handle to the same connections. Call [`migrate`](Self::migrate) once before anything else, at every
/// deployment: it makes or updates the schema.
pub struct PgQueue<C: Client> {
    shared: Arc<Shared<C>>,
}

/// How often something is tried that met a deadlock.
const TRIES: u32 = 6;

/// What all handles share.
pub(crate) struct Shared<C: Client> {
    pub(crate) client: Arc<C>,
    pub(crate) listener: Listener,
    pub(crate) options: Options,
    pub(crate) coalescing: Coalescing,
    pub(crate) pulse: Pulse<C>,
    pub(crate) turns: Turns,
    /// How many consumers are at work.
    pub(crate) consumers: Arc<watch::Sender<usize>>,
}

impl<C: Client> PgQueue<C> {
    /// Opens the queue of the database at `url`, over connections of its own.
    ///
    /// # Errors
    /// [`Fatal`](ErrorKind::Fatal) for a URL or a TLS mode that cannot be used, [`Connection`](ErrorKind::Connection) if the
    /// client tries to connect at once and cannot.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn connect(url: &str) -> Result<Self> {
        let client =
            C::connect(url).await.map_err(|error| repeatable(error, About::Queue).during(Operation::Manage))?;
        Ok(Self::new(client))
    }

    /// Opens the queue over what the service has already: a client, or what becomes one.
    pub fn new(client: impl Into<C>) -> Self {
        let client = Arc::new(client.into());
        let listener = Listener::new(Arc::clone(&client));
        let shared = Shared {
            client,
            listener,
            options: Options::default(),
            coalescing: Coalescing::default(),
            pulse: Pulse::default(),
            turns: Turns::default(),
            consumers: Arc::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    pub(crate) fn shared(&self) -> &Shared<C> {
        &self.shared
    }

    pub(crate) fn from_shared(shared: Arc<Shared<C>>) -> Self {
        Self { shared }
    }

    /// Returns a handle with other options, over the same connections.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for options that cannot be used.
    pub fn with_options(self, options: Options) -> Result<Self> {
        options.validate()?;
        let Shared { client, listener, consumers, .. } = &*self.shared;
        let (client, listener, consumers) = (Arc::clone(client), listener.clone(), Arc::clone(consumers));
        let (coalescing, pulse, turns) = (Coalescing::default(), Pulse::default(), Turns::default());
        Ok(Self { shared: Arc::new(Shared { client, listener, options, coalescing, pulse, turns, consumers }) })
    }

    /// Returns what consumes tables of your own, over the same connections.
    #[must_use]
    pub fn tables(&self) -> PgTables<C> {
        PgTables::over(Arc::clone(&self.shared.client), self.shared.listener.clone())
    }

    /// Makes the schema of the queue, or brings it up to date; changes nothing if it is, or if a newer binary made it. Safe to
    /// call from many processes at once.
    ///
    /// After a dump was restored on another server, nothing is published or consumed until this was called by the schema's owner:
    /// it brings over what the cursors say of the first server's transactions.
    ///
    /// # Errors
    /// [`Fatal`](ErrorKind::Fatal) for a missing privilege: an ordinary role suffices that owns the schema, or may create one in the
    /// database. [`Query`](ErrorKind::Query), transient, if a lock cannot be had within 5 s. The schema is as before then, or at a
    /// version in between.
    ///
    /// # Cancel safety
    /// Dropping the future means either outcome.
    pub async fn migrate(&self) -> Result<()> {
        managing(migrate::migrate(&*self.shared.client, &[]).await)
    }

    /// As [`migrate`](Self::migrate), and on by migrations that the next version of this crate might have, each of which notes its
    /// version last. For tests of what happens then.
    ///
    /// # Errors
    /// As [`migrate`](Self::migrate).
    ///
    /// # Cancel safety
    /// Dropping the future means either outcome.
    #[doc(hidden)]
    pub async fn migrate_further(&self, further: &[&str]) -> Result<()> {
        managing(migrate::migrate(&*self.shared.client, further).await)
    }

    /// Creates a topic. The same again changes nothing but the dedup window and the retention.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for an unusable name or option, [`Conflict`](ErrorKind::Conflict) if it exists with
    /// another number of buckets.
    ///
    /// # Cancel safety
    /// Dropping the future means either outcome.
    pub async fn create_topic(&self, topic: Topic) -> Result<()> {
        noted(self.shared.create_topic(&topic).await, "a topic was created", topic.name())
    }

    /// Returns all topics, by name.
    ///
    /// # Errors
    /// What the server says.
    ///
    /// # Cancel safety
    /// The future changes nothing.
    pub async fn topics(&self) -> Result<Vec<Topic>> {
        managing(self.shared.topics(None).await)
    }

    /// Returns a topic.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is none of this name.
    ///
    /// # Cancel safety
    /// The future changes nothing.
    pub async fn topic(&self, name: &str) -> Result<Topic> {
        let mut found = managing(self.shared.topics(Some(name)).await)?;
        found.pop().ok_or_else(|| Error::topic_not_found(name).during(Operation::Manage))
    }

    /// Deletes a topic with all its subscriptions, messages and dead letters. Their consumers' streams end with
    /// [`NotFound`](ErrorKind::NotFound). The messages' rows go in batches, with the [housekeeping](Self::maintain).
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is none of this name.
    ///
    /// # Cancel safety
    /// Dropping the future means either outcome.
    pub async fn delete_topic(&self, name: &str) -> Result<()> {
        let deleted = managing(self.shared.delete(statement::DELETE_TOPIC, name, About::Topic(name)).await)?;
        noted(if deleted { Ok(()) } else { Err(Error::topic_not_found(name)) }, "a topic was deleted", name)
    }

    /// Makes a consumer of a subscription: the driver for [`subscribe`](pgqueue_core::subscribe), which inserts it.
    #[must_use]
    pub fn subscription(&self, subscription: Subscription) -> PgSubscription<C> {
        PgSubscription::new(Arc::clone(&self.shared), subscription)
    }

    /// Returns all subscriptions, by name.
    ///
    /// # Errors
    /// What the server says.
    ///
    /// # Cancel safety
    /// The future changes nothing.
    pub async fn subscriptions(&self) -> Result<Vec<Subscription>> {
        let found = managing(self.shared.find_subscriptions(None).await)?;
        Ok(found.into_iter().map(|(_, subscription)| subscription).collect())
    }

    /// Returns a subscription, if there is one of this name.
    ///
    /// # Errors
    /// What the server says.
    ///
    /// # Cancel safety
    /// The future changes nothing.
    pub async fn find_subscription(&self, name: &str) -> Result<Option<Subscription>> {
        let found = managing(self.shared.find_subscriptions(Some(name)).await)?.pop();
        Ok(found.map(|(_, subscription)| subscription))
    }

    /// Inserts a subscription: it gets what commits from now on, or what else its [start](Subscription::with_start) says. The
    /// same again keeps all messages and takes the new batch, prefetch, lease, backoff, consumers and workers.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for an unusable name, option or position, [`NotFound`](ErrorKind::NotFound) for an
    /// unknown topic, [`Conflict`](ErrorKind::Conflict) if it exists with another topic, order or selector,
    /// [`Truncated`](ErrorKind::Truncated) if something was deleted that came after the position it starts from.
    ///
    /// # Cancel safety
    /// Dropping the future means either outcome.
    pub async fn insert_subscription(&self, subscription: &Subscription) -> Result<()> {
        noted(self.shared.insert_subscription(subscription).await, "a subscription was inserted", subscription.name())
    }

    /// Sets the batch, prefetch, lease, backoff, consumers and workers of a subscription that exists, from the next delivery on.
    ///
    /// # Errors
    /// As [`insert_subscription`](Self::insert_subscription), and [`NotFound`](ErrorKind::NotFound) if there is none of this
    /// name.
    ///
    /// # Cancel safety
    /// Dropping the future means either outcome.
    pub async fn alter_subscription(&self, subscription: &Subscription) -> Result<()> {
        managing(self.shared.find_subscription(subscription.name()).await)?;
        self.insert_subscription(subscription).await
    }

    /// Moves a subscription to another start: it gets all that comes after, once more if it had that. What waited for a retry is
    /// forgotten, and what a dead consumer had in hand; answers to that are refused.
    ///
    /// Stop its consumers in all processes, drop their streams, and wait for [`consumers_gone`](Self::consumers_gone) in each; one
    /// that crashed counts until its lease has ended.
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict) while one of its consumers lives, or while it has dead letters, which would come twice:
    /// it stays where it is. [`NotFound`](ErrorKind::NotFound) if there is none of this name, else as
    /// [`insert_subscription`](Self::insert_subscription).
    ///
    /// # Cancel safety
    /// Dropping the future means either outcome.
    pub async fn seek(&self, name: &str, start: &Start) -> Result<()> {
        noted(self.shared.seek(name, start).await, "a subscription was moved", name)
    }

    /// Deletes a subscription with its messages and dead letters. Its consumers' streams end with
    /// [`NotFound`](ErrorKind::NotFound), or go on with its successor if the same is inserted again at once.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is none of this name.
    ///
    /// # Cancel safety
    /// Dropping the future means either outcome.
    pub async fn delete_subscription(&self, name: &str) -> Result<()> {
        let about = About::Subscription(name);
        let deleted = managing(self.shared.delete(statement::DELETE_SUBSCRIPTION, name, about).await)?;
        let deleted = if deleted { Ok(()) } else { Err(Error::subscription_not_found(name)) };
        noted(deleted, "a subscription was deleted", name)
    }

    /// Publishes inside of the caller's transaction: the messages are there once it commits, and never if it rolls back.
    ///
    /// An error of the server leaves the transaction as any failed statement does: it can only be rolled back, or go back to a
    /// savepoint.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    ///
    /// # Cancel safety
    /// Dropping the future means either outcome, as far as the transaction commits.
    pub async fn publish_in(
        &self,
        transaction: &mut impl Transaction<C>,
        topic: &str,
        messages: Vec<NewMessage>,
    ) -> Result<Vec<MessageId>> {
        let published = telemetry::publishing(topic, messages, |messages| async move {
            publishing::validate(&messages)?;
            let parameters = publishing::write(topic, &messages, self.shared.options.ringing(), false)?;
            let answer = transaction.query(statement::PUBLISH, &parameters).await;
            publishing::read(&answer.map_err(|error| unrepeatable(error, About::Topic(topic)))?)
        });
        published.await.map_err(|error| error.during(Operation::Publish))
    }

    /// Answers a delivery with OK inside of the caller's transaction: what the handler wrote and its OK commit together. If it
    /// rolls back, the message comes again by the subscription's backoff.
    ///
    /// The lease is kept while the transaction is open, so commit soon.
    ///
    /// # Errors
    /// [`LeaseLost`](ErrorKind::LeaseLost) if the delivery belongs to somebody else by now: roll back.
    /// [`Invalid`](ErrorKind::Invalid) if it came from another queue handle or driver; it is requeued then.
    ///
    /// # Cancel safety
    /// Dropping the future means either outcome, as far as the transaction commits.
    pub async fn ok_in(&self, delivery: Delivery, transaction: &mut impl Transaction<C>) -> Result<()> {
        let foreign = || {
            let message =
                "the delivery is not one of this queue: settle it with the queue that its subscription was made with";
            Error::new(ErrorKind::Invalid, message).during(Operation::Settle)
        };
        let acker = delivery.try_into_acker::<PgAcker<C>>().map_err(|_| foreign())?;
        if !acker.belongs_to(&self.shared) {
            return Err(foreign());
        }
        acker.ok_in(transaction).await.map_err(|error| error.during(Operation::Settle))
    }

    /// Returns the messages that a subscription gave up, oldest first.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such subscription.
    ///
    /// # Cancel safety
    /// The future changes nothing.
    pub async fn dead_letters(&self, subscription: &str) -> Result<Vec<DeadLetter>> {
        let letters = managing(self.shared.dead_letters(subscription).await)?;
        Ok(letters.into_iter().map(|(_, letter)| letter).collect())
    }

    /// Hands all dead letters of a subscription out again, from their first attempt, behind what waits already. Returns how
    /// many there were.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such subscription.
    ///
    /// # Cancel safety
    /// Dropping the future means either outcome.
    pub async fn redrive(&self, subscription: &str) -> Result<usize> {
        managing(self.shared.redrive(subscription, None).await)
    }

    /// Hands one dead letter out again, from its first attempt, behind what waits already.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such subscription or dead letter.
    ///
    /// # Cancel safety
    /// Dropping the future means either outcome.
    pub async fn redrive_one(&self, subscription: &str, id: &MessageId) -> Result<()> {
        let redriven = async {
            let letters = self.shared.dead_letters(subscription).await?;
            let number = letters.iter().find(|(_, letter)| letter.message.id() == id).map(|(number, _)| *number);
            match number {
                Some(number) if self.shared.redrive(subscription, Some(number)).await? > 0 => Ok(()),
                _ => {
                    let message =
                        format!("message {id} is not among the dead letters of subscription {subscription:?}");
                    Err(Error::new(ErrorKind::NotFound, message))
                }
            }
        };
        managing(redriven.await)
    }

    /// Forgets all dead letters of a subscription. Returns how many there were.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such subscription.
    ///
    /// # Cancel safety
    /// Dropping the future means either outcome.
    pub async fn purge_dead_letters(&self, subscription: &str) -> Result<usize> {
        let purged = async {
            let (id, _) = self.shared.find_subscription(subscription).await?;
            let rows =
                self.shared.query(statement::PURGE, &[Parameter::new(id)], About::Subscription(subscription)).await?;
            count(&rows)
        };
        managing(purged.await)
    }

    /// Returns how a subscription stands.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such subscription.
    ///
    /// # Cancel safety
    /// The future changes nothing.
    pub async fn stats(&self, subscription: &str) -> Result<SubscriptionStats> {
        let found = async {
            let (id, _) = self.shared.find_subscription(subscription).await?;
            let rows =
                self.shared.query(statement::STATS, &[Parameter::new(id)], About::Subscription(subscription)).await?;
            let row = rows.first().ok_or_else(|| Error::subscription_not_found(subscription))?;
            stats::read(row, subscription)
        };
        managing(found.await)
    }

    /// Returns what keeps vacuum from removing what the queue has deleted, if anything does. Of sessions of
    /// other roles it says what they do, and since when, only where the owner of the schema is a member of `pg_read_all_stats`.
    ///
    /// # Errors
    /// What the server says.
    ///
    /// # Cancel safety
    /// The future changes nothing.
    pub async fn horizon_holder(&self) -> Result<Option<HorizonHolder>> {
        let rows = managing(self.shared.query(statement::HORIZON_HOLDER, &[], About::Queue).await)?;
        rows.first().map(stats::read_horizon_holder).transpose()
    }

    /// Ends all leases in hand of a subscription now, as if their holders had died. For tests of what happens then. The consumers
    /// live on: one that holds the subscription alone keeps it.
    ///
    /// # Errors
    /// What the server says.
    ///
    /// # Cancel safety
    /// Dropping the future means either outcome.
    pub async fn expire_leases(&self, subscription: &str) -> Result<()> {
        let parameters = [Parameter::new(subscription)];
        let about = About::Subscription(subscription);
        managing(self.shared.query(statement::EXPIRE_LEASES, &parameters, about).await).map(drop)
    }

    /// Does the queue's housekeeping once, where only publishers run: every process with consumers does it, every other second. Call
    /// it as often as scheduled messages may be late, and at least every 15 s while something is published.
    ///
    /// It lets scheduled messages that are due enter their topics, and deletes what every subscription has passed, both in
    /// bounded batches.
    ///
    /// # Errors
    /// What the server says.
    ///
    /// # Cancel safety
    /// Dropping the future means that some chores were done.
    pub async fn maintain(&self) -> Result<()> {
        let chores = [
            statement::BURY_OWNERS,
            statement::PUBLISH_SCHEDULED,
            statement::KEEP_STUCK,
            statement::TRIM,
            statement::SWEEP,
        ];
        for chore in chores {
            managing(self.shared.query(chore, &[], About::Queue).await)?;
        }
        Ok(())
    }

    /// Waits until every consumer of this queue, through any of its handles, has left: until its answers are durable, and what it had taken
    /// in advance is given back.
    ///
    /// Call it before the process ends, once the streams have ended or were dropped; otherwise others get what these had taken
    /// only when the lease ends. While a consumer is at work, it waits.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn consumers_gone(&self) {
        self.shared.consumers.subscribe().wait_for(|consumers| *consumers == 0).await.ok();
    }

    /// Returns the connection that listens, for channels of your own.
    #[must_use]
    pub fn listener(&self) -> &Listener {
        &self.shared.listener
    }

    /// Returns the client.
    #[must_use]
    pub fn client(&self) -> &C {
        &self.shared.client
    }

    /// Returns the options.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.shared.options
    }
}

impl<C: Client> Shared<C> {
    /// Asks the server, within the time limit.
    pub(crate) async fn query(
        &self,
        statement: &str,
        parameters: &[Parameter],
        about: About<'_>,
    ) -> Result<Vec<C::Row>> {
        within(self.options.time_limit(), async {
            self.client.query(statement, parameters).await.map_err(|error| repeatable(error, about))
        })
        .await
    }

    /// As [`query`](Self::query), and tries again where others were in the way for a moment: of two that wait for each other, the
    /// server refuses one. A migration takes its locks in an order of its own.
    pub(crate) async fn insist(
        &self,
        statement: &str,
        parameters: &[Parameter],
        about: About<'_>,
    ) -> Result<Vec<C::Row>> {
        let mut tries = 1..TRIES;
        loop {
            match self.query(statement, parameters, about).await {
                Err(error) if error.kind() == ErrorKind::Query && error.is_transient() && tries.next().is_some() => {}
                answer => return answer,
            }
        }
    }

    /// Deletes something by its name; returns whether it was there. Consumers that are about to stop may be in the way.
    async fn delete(&self, statement: &str, name: &str, about: About<'_>) -> Result<bool> {
        let rows = self.insist(statement, &[Parameter::new(name)], about).await?;
        rows.first().map_or(Ok(false), |row| row.get(0))
    }

    async fn create_topic(&self, topic: &Topic) -> Result<()> {
        topic.validate()?;
        let parameters = [
            Parameter::new(topic.name()),
            Parameter::new(i32::from(topic.buckets())),
            Parameter::new(millis(topic.dedup_window())),
            Parameter::nullable(topic.retention().max_age().map(millis)),
            Parameter::nullable(topic.retention().max_messages().map(saturating)),
            Parameter::nullable(topic.retention().max_bytes().map(saturating)),
            Parameter::new(topic.retention().laggards() == Laggards::Cut),
        ];
        let rows = self.query(statement::CREATE_TOPIC, &parameters, About::Topic(topic.name())).await?;
        let buckets = rows.first().map_or(Ok(i32::from(topic.buckets())), |row| row.get(0))?;
        let stored = Topic::new(topic.name()).with_buckets(u16::try_from(buckets).unwrap_or(u16::MAX));
        stored.ensure_same_identity(topic)
    }

    async fn topics(&self, name: Option<&str>) -> Result<Vec<Topic>> {
        let rows = self.query(statement::DESCRIBE_TOPIC, &[Parameter::nullable(name)], About::Queue).await?;
        let read = |row: &C::Row| {
            let limit = |column| Ok::<_, Error>(row.read::<i64>(column)?.map(i64::unsigned_abs));
            let mut retention = Retention::everything();
            if let Some(millis) = limit(3)? {
                retention = retention.with_max_age(Duration::from_millis(millis));
            }
            if let Some(messages) = limit(4)? {
                retention = retention.with_max_messages(messages);
            }
            if let Some(bytes) = limit(5)? {
                retention = retention.with_max_bytes(bytes);
            }
            if row.get(6)? {
                retention = retention.with_laggards(Laggards::Cut);
            }
            Ok(Topic::new(row.get::<String>(0)?)
                .with_buckets(u16::try_from(row.get::<i32>(1)?).unwrap_or(u16::MAX))
                .with_dedup_window(Duration::from_millis(row.get::<i64>(2)?.unsigned_abs()))
                .with_retention(retention))
        };
        rows.iter().map(read).collect()
    }

    pub(crate) async fn insert_subscription(&self, subscription: &Subscription) -> Result<()> {
        subscription.validate()?;
        let parameters = subscriptions::write(subscription)?;
        let rows = self.insist(statement::INSERT_SUBSCRIPTION, &parameters, About::Topic(subscription.topic())).await?;
        let stored = rows.first().ok_or_else(|| Error::subscription_not_found(subscription.name()))?;
        subscriptions::read_identity(stored, subscription.name())?.ensure_same_identity(subscription)
    }

    async fn seek(&self, name: &str, start: &Start) -> Result<()> {
        let parameters = [Parameter::new(name), Parameter::nullable(subscriptions::start(start)?)];
        let rows = self.query(statement::SEEK, &parameters, About::Subscription(name)).await?;
        let found: bool = rows.first().map_or(Ok(false), |row| row.get(0))?;
        if found { Ok(()) } else { Err(Error::subscription_not_found(name)) }
    }

    async fn find_subscriptions(&self, name: Option<&str>) -> Result<Vec<(i64, Subscription)>> {
        let rows = self.query(statement::DESCRIBE_SUBSCRIPTION, &[Parameter::nullable(name)], About::Queue).await?;
        rows.iter().map(|row| Ok((row.get(0)?, subscriptions::read(row)?))).collect()
    }

    async fn find_subscription(&self, name: &str) -> Result<(i64, Subscription)> {
        self.find_subscriptions(Some(name)).await?.pop().ok_or_else(|| Error::subscription_not_found(name))
    }

    /// The dead letters of a subscription and their numbers.
    async fn dead_letters(&self, name: &str) -> Result<Vec<(i64, DeadLetter)>> {
        let (id, subscription) = self.find_subscription(name).await?;
        let rows = self.query(statement::DEAD_LETTERS, &[Parameter::new(id)], About::Subscription(name)).await?;
        let topic = subscription.topic().into();
        rows.iter().map(|row| message::of_dead_letter(row, &topic)).collect()
    }

    async fn redrive(&self, name: &str, letter: Option<i64>) -> Result<usize> {
        let (id, _) = self.find_subscription(name).await?;
        let parameters = [Parameter::new(id), Parameter::nullable(letter)];
        count(&self.query(statement::REDRIVE, &parameters, About::Subscription(name)).await?)
    }

    /// Publishes messages that are valid, by a statement of their own.
    pub(crate) async fn publish_now(&self, topic: &str, messages: &[NewMessage]) -> Result<Vec<MessageId>> {
        let parameters = publishing::write(topic, messages, self.options.ringing(), true)?;
        let about = About::Topic(topic);
        let answer = within(self.options.time_limit(), async {
            let answer = self.client.query(statement::PUBLISH, &parameters).await;
            answer.map_err(|error| unrepeatable(error, about))
        });
        let answer = answer.await.map_err(|error| match error.kind() {
            // It was sent, perhaps.
            ErrorKind::Timeout => Error::new(ErrorKind::Unknown, error.to_string()),
            _ => error,
        });
        publishing::read(&answer?)
    }
}

fn saturating(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn count<R: crate::Row>(rows: &[R]) -> Result<usize> {
    let count = rows.first().map_or(Ok(0), |row| row.get::<i64>(0))?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// Says what was done, to whoever listens to `tracing`.
pub(crate) fn noted<T>(result: Result<T>, what: &'static str, name: &str) -> Result<T> {
    if result.is_ok() {
        tracing::info!(messaging.system = "pgqueue", name, "{what}");
    }
    managing(result)
}

pub(crate) fn managing<T>(result: Result<T>) -> Result<T> {
    result.map_err(|error| error.during(Operation::Manage))
}

#[async_trait]
impl<C: Client> Publisher for PgQueue<C> {
    async fn publish(&self, topic: &str, messages: Vec<NewMessage>) -> Result<Vec<MessageId>> {
        let published = telemetry::publishing(topic, messages, |messages| async move {
            publishing::validate(&messages)?;
            if self.shared.options.coalescing() {
                coalescing::publish(&self.shared, topic, messages).await
            } else {
                self.shared.publish_now(topic, &messages).await
            }
        });
        published.await.map_err(|error| error.during(Operation::Publish))
    }
}

impl<C: Client> Clone for PgQueue<C> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<C: Client> fmt::Debug for PgQueue<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgQueue").field("options", &self.shared.options).finish_non_exhaustive()
    }
}
