//! [`World`]: the instances of a service, and how they live together.

use std::sync::Arc;

use fastrand::Rng;
use futures::TryStreamExt;
use pgqueue_core::{
    MessageId, NewMessage, Order, Publisher, Result, Retention, Start, Subscription, SubscriptionDriver, Topic,
    subscribe,
};
use pgqueue_postgres::PgQueue;
use pgqueue_testserver::Server;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    PATIENCE, QUIET,
    audit::Audit,
    backend::Backend,
    ledger::{Ledger, Written},
    pace::Pace,
    writer::{TRANSACTIONS, Writer},
};

/// What everybody reads was there before: so many messages, after the first half of which some start.
const BEFORE: usize = 10;

/// Among how many the keys are divided: less than there are, so that some share one.
const BUCKETS: u16 = 4;

/// How many instances subscribe at a time where all are told one history, at most.
const SUBSCRIBING: usize = 3;

/// How many instances share a subscription whose messages need not come in one line.
const SHARED: usize = 3;

/// Longer than any pause of a busy machine, as nobody dies here.
const LEASE: std::time::Duration = std::time::Duration::from_secs(60);

/// Starts a server for one history after another. Nobody pulls its plug.
pub(crate) async fn server() -> Server {
    Server::builder().with_setting("fsync", "off").start().await.unwrap()
}

pub(crate) struct World<C: Backend> {
    url: String,
    instances: Vec<PgQueue<C>>,
    order: Order,
    ledger: Arc<Ledger>,
    audits: Vec<Arc<Audit>>,
    consumers: JoinSet<Result<()>>,
}

impl<C: Backend> World<C> {
    /// How many messages are before the start of those that do not start at the beginning.
    pub(crate) const fn passed() -> usize {
        BEFORE / 2
    }

    /// Starts instances that have written nothing, and of which the first has a subscription.
    pub(crate) async fn start(server: &Server, order: Order, instances: usize) -> Self {
        let database = format!("history_{instances}");
        server.create_database(&database).await.unwrap();
        let url = server.url(&database);
        let queues: Vec<_> = (0..instances).map(|_| C::queue(&url)).collect();
        let history = Topic::new("history").with_buckets(BUCKETS).with_retention(Retention::everything());
        queues[0].migrate().await.unwrap();
        queues[0].create_topic(history).await.unwrap();
        let (ledger, consumers) = (Arc::default(), JoinSet::new());
        Self { url, instances: queues, order, ledger, audits: Vec::new(), consumers }
    }

    /// Lets all write, and subscribe before, during and after that; returns what was written when everybody has got it.
    pub(crate) async fn live(&mut self) -> Arc<Ledger> {
        let early = self.write_alone().await;
        let all = self.follow(0, "first", Start::Beginning, 0).await;
        self.wait_for(&all, BEFORE).await;
        let last = &early[Self::passed() - 1];
        let position = all.messages().iter().find(|message| message.id() == last).unwrap().position().clone();
        let after = Start::After(position);

        self.subscribe_all("before", &after).await;
        let pace = Arc::new(Pace::new(self.instances.len() * TRANSACTIONS));
        let writers = self.writers(&pace).await;
        self.patiently(|| "half of the writing".to_owned(), pace.half()).await;
        self.subscribe_all("during", &after).await;
        pace.all_are_inserted();
        self.patiently(|| "the end of the writing".to_owned(), writers.join_all()).await;
        self.subscribe_all("after", &after).await;

        assert!(self.ledger.rolled_back() > 0, "nothing was rolled back");
        let committed = self.ledger.committed().len();
        for audit in self.audits.clone() {
            self.wait_for(&audit, committed - audit.passed()).await;
        }
        sleep(QUIET).await; // for what should not come
        Arc::clone(&self.ledger)
    }

    pub(crate) fn audits(&self) -> &[Arc<Audit>] {
        &self.audits
    }

    /// Inserts a subscription through an instance, which consumes it, perhaps together with the next ones.
    pub(crate) async fn follow(&mut self, instance: usize, name: &str, start: Start, passed: usize) -> Arc<Audit> {
        let n = self.audits.len();
        let subscription = Subscription::new(name, "history")
            .with_order(self.order)
            .with_start(start)
            .with_lease(LEASE)
            // Deliveries of several sizes, few of them of one message, as that takes its time.
            .with_batch([1, 20, 7, 50, 10, 30][n.min(n % 5 + 1)]);
        self.instances[instance].insert_subscription(&subscription).await.unwrap();
        let audit = Arc::new(Audit::new(name, passed));
        let consumers = if self.order == Order::StableTotal { 1 + usize::from(n.is_multiple_of(5)) } else { SHARED };
        for consumer in self.instances.iter().cycle().skip(instance).take(consumers) {
            self.consumers.spawn(consume(consumer.subscription(subscription.clone()), Arc::clone(&audit)));
        }
        self.audits.push(Arc::clone(&audit));
        audit
    }

    /// Ends all consumers.
    pub(crate) async fn rest(&mut self) {
        self.consumers.shutdown().await;
    }

    /// Waits until a subscription got so many.
    pub(crate) async fn wait_for(&mut self, audit: &Audit, messages: usize) {
        let what = || format!("{messages} messages of {:?}: {} came", audit.name(), audit.messages().len());
        self.patiently(what, audit.got(messages)).await;
    }

    /// Subscribes in both ways: several instances if there is one history for all, else one of them.
    async fn subscribe_all(&mut self, when: &str, after: &Start) {
        let (all, subscribed) = (self.instances.len(), self.audits.len());
        let subscribing: Vec<_> = match self.order {
            Order::StableTotal => (subscribed / 2 % 2..all).step_by(2).take(SUBSCRIBING).collect(),
            _ => vec![subscribed / 2 % all],
        };
        for instance in subscribing {
            self.follow(instance, &format!("{when}, {instance} from the beginning"), Start::Beginning, 0).await;
            self.follow(instance, &format!("{when}, {instance} after"), after.clone(), Self::passed()).await;
        }
    }

    /// Writes what is there before, one message after another.
    async fn write_alone(&self) -> Vec<MessageId> {
        let mut ids = Vec::new();
        for n in 0..BEFORE {
            let (payload, began) = (format!("before {n}"), self.ledger.now());
            let published = self.instances[0].publish("history", vec![NewMessage::new(payload.clone())]).await.unwrap();
            let id = published[0].clone();
            ids.push(id.clone());
            let written = Written { id, payload, key: None, began, transaction: (began, 0), committed: None };
            self.ledger.enter(vec![written], true);
        }
        ids
    }

    /// Of every instance one who hurries and one who holds transactions open.
    #[expect(clippy::print_stderr, reason = "whoever sees it fail wants to see it again")]
    async fn writers(&self, pace: &Arc<Pace>) -> JoinSet<()> {
        let seed = fastrand::u64(..);
        eprintln!("seed {seed}");
        let mut rng = Rng::with_seed(seed);
        let mut writers = JoinSet::new();
        for (instance, queue) in self.instances.iter().enumerate() {
            for holds in [false, true] {
                let writer = Writer {
                    name: format!("{instance}{}", if holds { " slowly" } else { "" }),
                    queue: queue.clone(),
                    connection: C::open(&self.url).await,
                    ledger: Arc::clone(&self.ledger),
                    pace: Arc::clone(pace),
                    holds,
                    rng: rng.fork(),
                };
                writers.spawn(writer.write());
            }
        }
        writers
    }

    /// Awaits what has to come, while all consume.
    async fn patiently<T>(&mut self, what: impl Fn() -> String, future: impl Future<Output = T>) -> T {
        tokio::select! {
            come = timeout(PATIENCE, future) => come.unwrap_or_else(|_| panic!("waited {PATIENCE:?} in vain for {}", what())),
            Some(ended) = self.consumers.join_next() => panic!("a consumer ended: {ended:?}"),
        }
    }
}

async fn consume(driver: impl SubscriptionDriver, audit: Arc<Audit>) -> Result<()> {
    let mut stream = subscribe(driver).await?;
    while let Some(delivery) = stream.try_next().await? {
        audit.see(delivery.messages());
        delivery.ok().await?;
    }
    Ok(())
}
