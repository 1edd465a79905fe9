//! [`Consumer`]: one consumer of a subscription, and what can be done to it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use fastrand::Rng;
use pgqueue_core::{OnRequeue, Subscription, SubscriptionDriver, subscribe};
use pgqueue_memory::{MemoryQueue, MemorySubscription};
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

use crate::{
    crew::{Crew, TaskId},
    event::ConsumerEvent,
    faults::Faulty,
    habits::{Mind, by_hand, by_worker},
    history::History,
    link::{Link, retries},
    observed::Observed,
    sabotage::{Sabotage, Saboteur},
    temper::Temper,
};

/// What all consumers of a run share.
#[derive(Clone)]
pub(crate) struct Stage {
    pub(crate) queue: MemoryQueue,
    pub(crate) crew: Crew,
    pub(crate) history: Arc<History>,
    sabotage: Option<Sabotage>,
    /// How many consumers there have been.
    consumers: u32,
}

impl Stage {
    pub(crate) fn new(queue: MemoryQueue, crew: Crew, history: Arc<History>, sabotage: Option<Sabotage>) -> Self {
        Self { queue, crew, history, sabotage, consumers: 0 }
    }
}

pub(crate) struct Consumer {
    number: u32,
    stage: Stage,
    driver: Arc<MemorySubscription>,
    task: TaskId,
    stop: Option<oneshot::Sender<()>>,
    /// Resolves when the task is over.
    over: oneshot::Receiver<()>,
}

/// How long a consumer may take to end; much longer than any handler and any time limit.
const PATIENCE: Duration = Duration::from_secs(60);

impl Consumer {
    pub(crate) fn start(stage: &mut Stage, options: Subscription, temper: Temper) -> Self {
        stage.consumers += 1;
        let (number, stage) = (stage.consumers, stage.clone());
        let started = ConsumerEvent::Started { subscription: options.name().to_owned(), temper: temper.clone() };
        stage.history.of_consumer(number, started);

        let driver = Arc::new(stage.queue.subscription(options.clone()));
        let saboteur = Saboteur { driver: Arc::clone(&driver), sabotage: stage.sabotage, last: Mutex::default() };
        let observed = Observed { driver: saboteur, options, consumer: number, stage: stage.clone() };
        let (stop, stopped) = oneshot::channel();
        let (ending, over) = oneshot::channel();
        let history = Arc::clone(&stage.history);
        let task = stage.crew.spawn(async move {
            consume(number, observed, temper, stopped, history).await;
            ending.send(()).ok(); // nobody waits for one that was killed
        });
        Self { number, stage, driver, task, stop: Some(stop), over }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.stage.crew.is_over(self.task)
    }

    pub(crate) fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            self.record(ConsumerEvent::Told);
            stop.send(()).ok(); // its stream may be over
        }
    }

    pub(crate) fn kill(&self) {
        self.record(ConsumerEvent::Killed);
        self.stage.crew.kill(self.task);
    }

    pub(crate) fn crash(&self) {
        self.driver.crash();
        self.record(ConsumerEvent::Crashed);
    }

    /// Stops the heartbeat for a while.
    pub(crate) fn freeze(&self, time: Duration) {
        let (number, driver, history) = (self.number, Arc::clone(&self.driver), Arc::clone(&self.stage.history));
        driver.pause_heartbeat();
        self.record(ConsumerEvent::Beats(false));
        self.stage.crew.spawn(async move {
            sleep(time).await;
            driver.resume_heartbeat();
            history.of_consumer(number, ConsumerEvent::Beats(true));
        });
    }

    /// Waits until it is over.
    pub(crate) async fn end(self) {
        let Self { number, stage, over, .. } = self;
        if timeout(PATIENCE, over).await.is_err() {
            stage.history.of_consumer(number, ConsumerEvent::Hung);
        }
    }

    fn record(&self, event: ConsumerEvent) {
        self.stage.history.of_consumer(self.number, event);
    }
}

/// The life of a consumer.
async fn consume(
    number: u32,
    driver: impl SubscriptionDriver,
    temper: Temper,
    stop: oneshot::Receiver<()>,
    history: Arc<History>,
) {
    let link = Link {
        consumer: number,
        faults: temper.faults,
        rng: Arc::new(Mutex::new(Rng::with_seed(!temper.seed))), // what befalls it is independent of what it does
        history: Arc::clone(&history),
    };
    let stop = async { drop(stop.await) };
    let on_requeue = if temper.picky { OnRequeue::Stop } else { OnRequeue::Continue };
    let by_worker_or_hand = temper.worker;
    let mind = Arc::new(Mind::new(number, temper, Arc::clone(&history)));
    let end = match subscribe(Faulty::new(driver, link)).await {
        Ok(stream) => {
            let stream = stream.until(stop).with_retry(retries()).on_requeue(on_requeue);
            if by_worker_or_hand { by_worker(stream, &mind).await } else { by_hand(stream, &mind).await }
        }
        Err(error) => Err(error),
    };
    history.of_consumer(number, ConsumerEvent::Ended(end.map_err(|error| error.kind())));
}
