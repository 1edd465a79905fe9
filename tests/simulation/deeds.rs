//! How the steps of the schedule are taken, and put on record.

use pgqueue_core::{Publisher, Subscription, Topic};
use tokio::time::advance;

use crate::{
    consumer::Consumer,
    event::What,
    step::{Blow, Draft, Step},
    temper::Temper,
    world::World,
};

impl World {
    pub(crate) async fn take(&mut self, step: Step) {
        match step {
            Step::Publish { topic, drafts } => self.publish(topic, drafts).await,
            Step::Insert(options) => self.insert(options).await,
            Step::Start(options, temper) => self.start(options, temper),
            Step::Strike(which, blow) => self.strike(which, &blow),
            Step::Expire(subscription) => self.expire(subscription),
            Step::Redrive(subscription, which) => self.redrive(subscription, which).await,
            Step::Stall(time) => {
                self.stage.history.record(What::Stalled(time));
                advance(time).await;
            }
        }
    }

    pub(crate) async fn create(&self, topic: Topic) {
        self.stage.queue.create_topic(topic.clone()).await.expect("the topic is new");
        self.stage.history.record(What::Created(topic));
    }

    async fn publish(&self, topic: &str, drafts: Vec<Draft>) {
        let messages = drafts.iter().map(Draft::message).collect();
        let outcome = self.stage.queue.publish(topic, messages).await.map_err(|error| error.kind());
        self.stage.history.record(What::Published { topic: topic.to_owned(), drafts, outcome });
    }

    /// Alters the subscription, or inserts it if it does not exist.
    async fn insert(&self, options: Subscription) {
        if self.stage.queue.alter_subscription(&options).await.is_err() {
            self.stage.queue.insert_subscription(&options).await.expect("the topic exists");
        }
        self.stage.history.record(What::Inserted(options));
    }

    pub(crate) fn start(&mut self, options: Subscription, temper: Temper) {
        self.consumers.push(Consumer::start(&mut self.stage, options, temper));
    }

    fn strike(&mut self, which: usize, blow: &Blow) {
        self.consumers.retain(|consumer| !consumer.is_over());
        let Some(which) = which.checked_rem(self.consumers.len()) else { return };
        let consumer = &mut self.consumers[which];
        match blow {
            Blow::Stop => consumer.stop(),
            Blow::Freeze(time) => consumer.freeze(*time),
            Blow::Kill => consumer.kill(),
            Blow::Crash { zombie } => {
                consumer.crash();
                if !zombie {
                    consumer.kill();
                }
            }
        }
    }

    fn expire(&self, subscription: &str) {
        if self.stage.queue.expire_leases(subscription).is_ok() {
            self.stage.history.record(What::Expired(subscription.to_owned()));
        }
    }

    async fn redrive(&self, subscription: &str, which: Option<usize>) {
        let Ok(letters) = self.stage.queue.dead_letters(subscription).await else { return };
        let one = which.and_then(|which| Some(letters[which.checked_rem(letters.len())?].message.id().clone()));
        let redriven = match &one {
            Some(id) => self.stage.queue.redrive_one(subscription, id).await.map(|()| 1),
            None => self.stage.queue.redrive(subscription).await,
        };
        let count = redriven.unwrap_or_default();
        self.stage.history.record(What::Redriven { subscription: subscription.to_owned(), one, count });
    }
}
