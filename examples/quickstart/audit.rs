//! [`Audit`]: what becomes of the deliveries of one subscription, seen from between driver and core.

use std::{collections::BTreeMap, fmt, sync::Arc};

use async_trait::async_trait;
use futures::future::BoxFuture;
use pgqueue_core::{Ack, Acker, Delivery, MessageId, Result, Subscription, SubscriptionDriver, Wakeups};
use pgqueue_examples::Queue;
use tokio::sync::watch;

/// Counts what really happened to a subscription's messages: an answer counts once the driver has accepted it.
pub(crate) struct Audit {
    /// What people call the subscription.
    title: &'static str,
    subscription: Subscription,
    tally: Arc<watch::Sender<Tally>>,
}

#[derive(Default)]
pub(crate) struct Tally {
    /// How many messages there are, once all are published.
    expected: Option<usize>,
    /// How often a handler was called.
    pub(crate) delivered: usize,
    /// How many answers were given.
    answers: usize,
    /// The messages answered with OK, by the number of that answer.
    pub(crate) acked: BTreeMap<usize, MessageId>,
    pub(crate) requeued: usize,
    pub(crate) dead: usize,
}

impl Audit {
    pub(crate) fn new(title: &'static str, subscription: Subscription) -> Self {
        Self { title, subscription, tally: Arc::default() }
    }

    pub(crate) fn title(&self) -> &'static str {
        self.title
    }

    /// Makes a consumer of the subscription whose deliveries are counted.
    pub(crate) fn watch(&self, queue: &dyn Queue) -> impl SubscriptionDriver {
        Audited {
            driver: queue.consumer(self.subscription.clone()),
            max_attempts: self.subscription.backoff().max_attempts(),
            tally: Arc::clone(&self.tally),
        }
    }

    /// Counts a call of a handler and returns its number, from 1.
    pub(crate) fn count_call(&self) -> usize {
        let mut call = 0;
        self.tally.send_modify(|tally| {
            tally.delivered += 1;
            call = tally.delivered;
        });
        call
    }

    /// Says how many messages there are in all.
    pub(crate) fn expect(&self, messages: usize) {
        self.tally.send_modify(|tally| tally.expected = Some(messages));
    }

    /// Resolves once as many messages as [expected](Self::expect) are acked or dead.
    pub(crate) async fn settled(&self) {
        let all = |tally: &Tally| tally.expected == Some(tally.acked.len() + tally.dead);
        self.tally.subscribe().wait_for(all).await.ok(); // its sender is here, so it waits for as long as it takes
    }

    pub(crate) fn tally(&self) -> watch::Ref<'_, Tally> {
        self.tally.borrow()
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { acked, requeued, dead, .. } = &*self.tally();
        write!(f, "{}: {} acked, {requeued} requeued, {dead} dead", self.title, acked.len())
    }
}

/// A driver whose deliveries are counted.
struct Audited {
    driver: Arc<dyn SubscriptionDriver>,
    max_attempts: u32,
    tally: Arc<watch::Sender<Tally>>,
}

#[async_trait]
impl SubscriptionDriver for Audited {
    async fn insert_subscription(&self) -> Result<()> {
        self.driver.insert_subscription().await
    }

    async fn listen(&self) -> Result<Wakeups> {
        self.driver.listen().await
    }

    async fn fetch_pending(&self) -> Result<Option<Delivery>> {
        let Some(delivery) = self.driver.fetch_pending().await? else { return Ok(None) };
        let id = delivery.message().id().clone();
        let last_attempt = delivery.message().attempt() >= self.max_attempts;
        let tally = Arc::clone(&self.tally);
        Ok(Some(delivery.map_acker(|acker| AuditedAcker { acker, id, last_attempt, tally })))
    }
}

/// The driver's own acker, which hears what core says.
struct AuditedAcker {
    acker: Box<dyn Acker>,
    id: MessageId,
    last_attempt: bool,
    tally: Arc<watch::Sender<Tally>>,
}

#[async_trait]
impl Acker for AuditedAcker {
    async fn settle(self: Box<Self>, ack: Ack) -> Result<()> {
        let Self { acker, id, last_attempt, tally } = *self;
        // Numbered before the driver hears of it: what it hands out next because of this answer has a higher number.
        let mut answer = 0;
        tally.send_modify(|tally| {
            tally.answers += 1;
            answer = tally.answers;
        });
        acker.settle(ack.clone()).await?;
        tally.send_modify(|tally| match ack {
            Ack::Ok => {
                tally.acked.insert(answer, id);
            }
            Ack::Requeue(_) if !last_attempt => tally.requeued += 1,
            _ => tally.dead += 1,
        });
        Ok(())
    }

    fn lease_lost(&self) -> BoxFuture<'static, ()> {
        self.acker.lease_lost()
    }
}
