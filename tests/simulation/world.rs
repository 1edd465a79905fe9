//! [`run`]: one run of the simulation, from its seed to its history.

use std::{mem::take, sync::Arc, time::Duration};

use fastrand::Rng;
use pgqueue_core::{Message, MessageId, Result};
use pgqueue_memory::MemoryQueue;
use tokio::{runtime::Builder, time::sleep};

use crate::{
    consumer::{Consumer, Stage},
    crew::Crew,
    event::{Account, Event, What},
    history::History,
    sabotage::Sabotage,
    schedule::{SUBSCRIPTIONS, Schedule, TOPICS},
    temper::Temper,
};

pub(crate) struct World {
    pub(crate) stage: Stage,
    pub(crate) schedule: Schedule,
    pub(crate) consumers: Vec<Consumer>,
}

/// Longer than it takes to get everything done.
const LONG: Duration = Duration::from_secs(600);

/// Runs a seed and returns what happened. The same seed gives the same history.
pub(crate) fn run(seed: u64, sabotage: Option<Sabotage>) -> Vec<Event> {
    fastrand::seed(seed); // core and the driver take their jitter from the thread's generator
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without I/O needs no resources").block_on(async {
        let mut rng = Rng::with_seed(seed);
        let (crew, history) = (Crew::new(rng.fork()), Arc::new(History::begin()));
        let stage = Stage::new(MemoryQueue::new(), crew.clone(), Arc::clone(&history), sabotage);
        let mut world = World { stage, schedule: Schedule::new(rng), consumers: Vec::new() };
        tokio::select! {
            biased;
            () = world.run() => {}
            () = crew.work() => {}
        }
        crew.dismiss();
        history.take()
    })
}

impl World {
    async fn run(&mut self) {
        self.trouble().await;
        self.drain().await;
        self.calm().await;
        self.end().await;
    }

    /// Lets everything happen that can.
    async fn trouble(&mut self) {
        for topic in self.schedule.topics() {
            self.create(topic).await;
        }
        for (pause, step) in self.schedule.trouble() {
            sleep(pause).await;
            self.take(step).await;
        }
        self.stop_all().await;
    }

    /// Gives every subscription one consumer, who must get everything done over a bad line.
    async fn drain(&mut self) {
        self.start_all(Temper::patient);
        for (pause, step) in self.schedule.drain() {
            sleep(pause).await;
            self.take(step).await;
        }
        sleep(LONG).await;
        self.stage.history.record(What::Drained);
        self.stop_all().await;
    }

    /// Gives every subscription two consumers with time. One may be struck; whatever happens, the other is there at once.
    async fn calm(&mut self) {
        self.start_all(Temper::calm);
        let spared = take(&mut self.consumers);
        self.start_all(Temper::calm);
        sleep(Duration::from_millis(10)).await; // until all wait
        self.stage.history.record(What::Calm);
        for (pause, step) in self.schedule.calm() {
            sleep(pause).await;
            self.take(step).await;
        }
        sleep(LONG).await;
        self.consumers.extend(spared);
        self.stop_all().await;
    }

    /// Lets the queue give its account, and deletes everything under its consumers.
    async fn end(&mut self) {
        for (subscription, ..) in SUBSCRIPTIONS {
            let account = self.account(subscription).await.expect("the subscription exists");
            self.stage.history.record(What::Account(account));
        }
        self.start_all(Temper::calm);
        sleep(Duration::from_secs(1)).await;
        for topic in TOPICS {
            self.stage.queue.delete_topic(topic).await.expect("the topic exists");
            self.stage.history.record(What::Deleted(topic.to_owned()));
        }
        self.end_all().await;
    }

    fn start_all(&mut self, temper: fn(&mut Rng) -> Temper) {
        for (options, temper) in self.schedule.consumers(temper) {
            self.start(options, temper);
        }
    }

    async fn stop_all(&mut self) {
        self.consumers.iter_mut().for_each(Consumer::stop);
        self.end_all().await;
    }

    async fn end_all(&mut self) {
        for consumer in self.consumers.drain(..) {
            consumer.end().await;
        }
    }

    async fn account(&self, subscription: &str) -> Result<Account> {
        let queue = &self.stage.queue;
        let ids =
            |messages: Vec<Message>| messages.iter().map(|message| message.id().clone()).collect::<Vec<MessageId>>();
        let letters = queue.dead_letters(subscription).await?.into_iter();
        Ok(Account {
            subscription: subscription.to_owned(),
            pending: ids(queue.pending(subscription)?),
            in_flight: ids(queue.in_flight(subscription)?),
            acked: ids(queue.acked(subscription)?),
            dead: letters.map(|dead| (dead.message.id().clone(), dead.message.attempt(), dead.reason)).collect(),
            listeners: queue.listeners(subscription)?,
        })
    }
}
