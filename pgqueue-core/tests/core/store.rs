//! A scripted store: what core asks of it goes into a log, what it answers are the expectations of a mock.

use std::{
    future::{Ready, ready},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use futures::{Stream, StreamExt, future::BoxFuture};
use pgqueue_core::{
    Ack, Acker, BoxError, Delivery, ErrorKind, Failure, Job, Message, Result, SubscriptionDriver, Wakeups,
};
use tokio::time::Instant;

use crate::script::MockAnswers;

/// What happened to a store and around it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    Insert,
    Listen,
    /// The wake-ups were dropped.
    Unlisten,
    /// A wake-up was taken.
    Wakeup,
    Fetch,
    /// A fetch was dropped before its answer came.
    FetchDropped,
    /// A handler was called.
    Handle(u32),
    /// A handler's future was dropped.
    HandlerDropped(u32),
    /// `on_error` was called.
    Report(u32, ErrorKind),
    /// The acker was asked to settle; the reason of a requeue is in [`Store::reasons`].
    Settle(u32, Ack),
    /// The acker was dropped unsettled.
    Release(u32),
}

#[derive(Clone)]
pub(crate) struct Store(Arc<Inner>);

struct Inner {
    answers: MockAnswers,
    began: Instant,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    events: Vec<(Event, Duration)>,
    reasons: Vec<String>,
}

impl Store {
    pub(crate) fn new(answers: MockAnswers) -> Self {
        Self(Arc::new(Inner { answers, began: Instant::now(), log: Mutex::default() }))
    }

    pub(crate) fn log(&self, event: Event) {
        self.0.log.lock().unwrap().events.push((event, self.0.began.elapsed()));
    }

    /// Logs `event` once the returned value is dropped.
    pub(crate) fn log_drop(&self, event: Event) -> impl Send + Sync + use<> {
        DropLog(self.clone(), Some(event))
    }

    /// Returns what happened since this was last asked.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.0.log.lock().unwrap().events.drain(..).map(|(event, _)| event).collect()
    }

    /// Returns in which seconds since the start `event` happened, and keeps the log.
    pub(crate) fn seconds(&self, event: &Event) -> Vec<u64> {
        let log = self.0.log.lock().unwrap();
        log.events.iter().filter(|(happened, _)| happened == event).map(|(_, at)| at.as_secs()).collect()
    }

    /// Returns the reasons given with requeues.
    pub(crate) fn reasons(&self) -> Vec<String> {
        self.0.log.lock().unwrap().reasons.clone()
    }

    pub(crate) fn acker(&self, message: u32) -> ScriptedAcker {
        ScriptedAcker { store: self.clone(), message, settled: false }
    }

    /// A handler that logs its calls and answers `ack`.
    pub(crate) fn handler(&self, ack: Ack) -> impl Fn(Job<u32>) -> Ready<Result<Ack, BoxError>> + use<> {
        let store = self.clone();
        move |job| {
            store.log(Event::Handle(job.value));
            ready(Ok(ack.clone()))
        }
    }

    /// An error report that goes into the log.
    pub(crate) fn report(&self) -> impl Fn(Failure<'_>) + Send + Sync + use<> {
        let store = self.clone();
        move |failure| store.log(Event::Report(number(&failure.messages[0]), failure.error.kind()))
    }
}

#[async_trait]
impl SubscriptionDriver for Store {
    async fn insert_subscription(&self) -> Result<()> {
        self.log(Event::Insert);
        self.0.answers.insert().await
    }

    async fn listen(&self) -> Result<Wakeups> {
        self.log(Event::Listen);
        let wakeups = self.0.answers.listen().await?;
        let (store, listening) = (self.clone(), self.log_drop(Event::Unlisten));
        let taken = move |_: &_| {
            let _ = &listening;
            store.log(Event::Wakeup);
        };
        Ok(wakeups.inspect(taken).boxed())
    }

    async fn fetch_pending(&self) -> Result<Option<Delivery>> {
        self.log(Event::Fetch);
        let mut unanswered = DropLog(self.clone(), Some(Event::FetchDropped));
        let fetched = self.0.answers.fetch().await;
        unanswered.1 = None;
        let Some(mut messages) = fetched? else { return Ok(None) };
        let acker = self.acker(number(&messages[0]));
        match messages.len() {
            1 => Ok(Some(Delivery::new(messages.remove(0), acker))),
            _ => Delivery::batch(messages, acker).map(Some),
        }
    }
}

pub(crate) struct ScriptedAcker {
    store: Store,
    message: u32,
    settled: bool,
}

#[async_trait]
impl Acker for ScriptedAcker {
    async fn settle(mut self: Box<Self>, mut ack: Ack) -> Result<()> {
        self.settled = true;
        if let Ack::Requeue(requeue) = &mut ack {
            self.store.0.log.lock().unwrap().reasons.extend(requeue.reason.take());
        }
        self.store.log(Event::Settle(self.message, ack));
        self.store.0.answers.settle().await
    }

    fn lease_lost(&self) -> BoxFuture<'static, ()> {
        self.store.0.answers.lease_lost()
    }
}

impl Drop for ScriptedAcker {
    fn drop(&mut self) {
        if !self.settled {
            self.store.log(Event::Release(self.message));
        }
    }
}

struct DropLog(Store, Option<Event>);

impl Drop for DropLog {
    fn drop(&mut self) {
        if let Some(event) = self.1.take() {
            self.0.log(event);
        }
    }
}

/// Takes the next delivery, answers OK, and returns its number.
pub(crate) async fn accept(stream: &mut (impl Stream<Item = Result<Delivery>> + Unpin)) -> u32 {
    let delivery = stream.next().await.unwrap().unwrap();
    let accepted = number(delivery.message());
    delivery.ok().await.unwrap();
    accepted
}

/// The number by which a message is known in these tests.
pub(crate) fn number(message: &Message) -> u32 {
    message.id().as_str().parse().unwrap()
}
