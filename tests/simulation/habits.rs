//! How a consumer goes about it: by hand with the bare stream, or with a [`Worker`].

use std::{
    future::{Future, pending},
    panic::resume_unwind,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fastrand::Rng;
use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use pgqueue_core::{Ack, BoxError, ConsumeStream, Delivery, Error, ErrorKind, Job, Result, Worker};
use tokio::time::sleep;

use crate::{
    event::{ConsumerEvent, DeliveryEvent},
    history::History,
    temper::{Answer, Choice, Failure, Temper},
};

/// How long a handler may take; longer than a delivery is held.
const TIME_LIMIT: Duration = Duration::from_secs(6);

/// What decides in a consumer.
pub(crate) struct Mind {
    consumer: u32,
    temper: Temper,
    rng: Mutex<Rng>,
    history: Arc<History>,
}

impl Mind {
    pub(crate) fn new(consumer: u32, temper: Temper, history: Arc<History>) -> Self {
        let rng = Rng::with_seed(temper.seed).into();
        Self { consumer, temper, rng, history }
    }

    fn draw<T>(&self, from: impl FnOnce(&mut Rng) -> T) -> T {
        from(&mut self.rng.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Decides what to do with the delivery that the stream just yielded.
    fn choose(&self) -> Choice {
        let delivery = self.history.latest_delivery_to(self.consumer);
        let choice = self.draw(|rng| Choice::draw(rng, &self.temper, delivery));
        // Who answers at once has no time to hear anything.
        let watched = self.temper.watchful && !choice.hold.is_zero();
        self.history.of_delivery(delivery, DeliveryEvent::Yielded { answer: choice.answer.clone(), watched });
        choice
    }

    /// How long to wait for a delivery.
    fn patience(&self) -> Duration {
        if self.temper.restless { Duration::from_millis(self.draw(|rng| rng.u64(..500))) } else { Duration::MAX }
    }

    /// Whether to drop the stream.
    fn gives_up(&self) -> bool {
        self.temper.restless && self.draw(|rng| rng.u8(..40)) == 0
    }

    async fn settle(&self, delivery: Delivery, choice: &Choice, ack: Ack) {
        let outcome = delivery.settle(ack).await.map_err(|error| error.kind());
        self.history.of_delivery(choice.delivery, DeliveryEvent::Concluded(outcome));
    }
}

pub(crate) async fn by_hand<S: Future<Output = ()>>(stream: ConsumeStream<S>, mind: &Mind) -> Result<()> {
    let mut stream = Box::pin(stream);
    let mut held = FuturesUnordered::new();
    let end = loop {
        tokio::select! {
            biased;
            Some(()) = held.next() => {}
            item = stream.next(), if held.len() < mind.temper.capacity => match item {
                Some(Ok(delivery)) => held.push(hold(delivery, mind)),
                Some(Err(error)) => break Some(Err(error)),
                None => break Some(Ok(())),
            },
            // Here the future of `next()` is dropped mid-way.
            () = sleep(mind.patience()) => if mind.gives_up() {
                mind.history.of_consumer(mind.consumer, ConsumerEvent::Told);
                break None;
            },
        }
    };
    if end.is_some() && !matches!(stream.next().now_or_never(), Some(None)) {
        mind.history.of_consumer(mind.consumer, ConsumerEvent::Undead);
    }
    drop(stream);
    while held.next().await.is_some() {}
    end.unwrap_or(Ok(()))
}

/// Keeps a delivery for a while and answers it.
async fn hold(delivery: Delivery, mind: &Mind) {
    let choice = mind.choose();
    if !choice.hold.is_zero() {
        tokio::select! {
            biased;
            () = delivery.lease_lost(), if mind.temper.watchful => {
                mind.history.of_delivery(choice.delivery, DeliveryEvent::LeaseLost);
            }
            () = sleep(choice.hold) => {}
        }
    }
    match &choice.answer {
        Answer::Settle(ack) => mind.settle(delivery, &choice, ack.clone()).await,
        Answer::Drop | Answer::Fail(_) => drop(delivery),
    }
}

pub(crate) async fn by_worker<S>(stream: ConsumeStream<S>, mind: &Arc<Mind>) -> Result<()>
where
    S: Future<Output = ()> + Send,
{
    let chooser = Arc::clone(mind);
    let decoder = move |_: &Delivery| {
        let choice = chooser.choose();
        match choice.answer {
            Answer::Fail(Failure::Decode) => Err(Error::new(ErrorKind::Decode, "the payload makes no sense")),
            _ => Ok(choice),
        }
    };
    Worker::with_decoder(stream, decoder, |job| handle(job, mind))
        .with_concurrency(mind.temper.capacity)
        .with_timeout(TIME_LIMIT)
        .with_cancel_on_lease_lost(mind.temper.watchful)
        .run()
        .await
}

async fn handle(job: Job<Choice>, mind: &Mind) -> Result<Ack, BoxError> {
    if !job.value.hold.is_zero() {
        sleep(job.value.hold).await;
    }
    match &job.value.answer {
        Answer::Settle(ack) if !job.value.takes => Ok(ack.clone()),
        Answer::Settle(_) | Answer::Drop => {
            let (choice, delivery) = job.take_delivery()?;
            if let Answer::Settle(ack) = &choice.answer {
                mind.settle(delivery, &choice, ack.clone()).await;
            }
            Ok(Ack::reject("what was taken is not settled by this"))
        }
        Answer::Fail(Failure::Overrun) => pending().await,
        Answer::Fail(Failure::Panic) => resume_unwind(Box::new("the handler panicked")), // it writes no report
        Answer::Fail(Failure::Decode | Failure::Error) => Err("the handler failed".into()),
    }
}
