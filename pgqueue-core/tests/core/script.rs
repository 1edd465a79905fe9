//! What a [`Store`] will answer, and the answers.

use std::{
    fmt,
    future::{Future, pending, ready},
    time::{Duration, SystemTime},
};

use futures::{FutureExt, Stream, StreamExt, channel::oneshot, future::BoxFuture, stream};
use mockall::mock;
use pgqueue_core::{
    ConsumeStream, Error, ErrorKind, Message, MessageId, NewMessage, Position, Result, RetryPolicy, Wakeup, Wakeups,
    subscribe,
};
use tokio::time::sleep;

use crate::store::{Event, Store};

/// What a fetch claims: nothing, one message, or several as a batch.
pub(crate) type Fetched = Option<Vec<Message>>;

mock! {
    /// What the store answers. An answer is a future, so that it can come at once, late or never, and panic.
    pub(crate) Answers {
        pub(crate) fn insert(&self) -> BoxFuture<'static, Result<()>>;
        pub(crate) fn listen(&self) -> BoxFuture<'static, Result<Wakeups>>;
        pub(crate) fn fetch(&self) -> BoxFuture<'static, Result<Fetched>>;
        pub(crate) fn settle(&self) -> BoxFuture<'static, Result<()>>;
        pub(crate) fn lease_lost(&self) -> BoxFuture<'static, ()>;
    }
}

/// The answers to come, call by call. Every one must be asked for. After the last, everything succeeds at once: nothing
/// is pending, no wake-up comes, settling works, and leases hold.
#[derive(Default)]
pub(crate) struct Script(MockAnswers);

macro_rules! scripted {
    ($($call:ident: $expect_call:ident -> $answer:ty),* $(,)?) => {
        $(pub(crate) fn $call(mut self, answer: impl Future<Output = $answer> + Send + 'static) -> Self {
            self.0.$expect_call().once().return_once(move || answer.boxed());
            self
        })*
    };
}

impl Script {
    scripted! {
        insert: expect_insert -> Result<()>,
        listen: expect_listen -> Result<Wakeups>,
        fetch: expect_fetch -> Result<Fetched>,
        settle: expect_settle -> Result<()>,
        lease_lost: expect_lease_lost -> (),
    }

    /// Answers every further fetch by calling `answer`.
    pub(crate) fn fetch_always(
        mut self,
        answer: impl Fn() -> BoxFuture<'static, Result<Fetched>> + Send + 'static,
    ) -> Self {
        self.0.expect_fetch().returning(answer);
        self
    }

    pub(crate) fn store(mut self) -> Store {
        self.0.expect_insert().returning(|| ready(Ok(())).boxed());
        self.0.expect_listen().returning(|| wakeups(silence()).boxed());
        self.0.expect_fetch().returning(|| nothing().boxed());
        self.0.expect_settle().returning(|| ready(Ok(())).boxed());
        self.0.expect_lease_lost().returning(|| pending().boxed());
        Store::new(self.0)
    }

    /// Subscribes, and forgets that it did.
    pub(crate) async fn subscribe(self) -> (Store, ConsumeStream) {
        let store = self.store();
        let stream = subscribe(store.clone()).await.unwrap();
        assert_eq!(store.events(), [Event::Insert, Event::Listen]);
        (store, stream)
    }
}

/// A message whose id is `number` and whose payload is `payload`.
pub(crate) fn message(number: u32, payload: impl fmt::Display) -> Message {
    let (id, position) = (MessageId::new(number.to_string()), Position::new(number.to_string()));
    Message::new(id, position, "numbers", NewMessage::new(payload.to_string()), SystemTime::UNIX_EPOCH)
}

/// An answer: one message, its number as payload.
pub(crate) async fn one(number: u32) -> Result<Fetched> {
    several([number]).await
}

/// An answer: a message for each number, as a batch unless there is only one.
pub(crate) async fn several<const N: usize>(numbers: [u32; N]) -> Result<Fetched> {
    Ok(Some(numbers.map(|number| message(number, number)).into()))
}

/// An answer: no message is pending.
pub(crate) async fn nothing() -> Result<Fetched> {
    Ok(None)
}

/// An answer: these wake-ups.
pub(crate) async fn wakeups(wakeups: impl Stream<Item = Result<Wakeup>> + Send + 'static) -> Result<Wakeups> {
    Ok(wakeups.boxed())
}

/// Wake-ups that never come. A test that waits for one ends after an hour by the paused clock, instead of never.
pub(crate) fn silence() -> impl Stream<Item = Result<Wakeup>> + Send {
    stream::once(async {
        sleep(seconds(60 * 60)).await;
        panic!("nothing has happened for an hour")
    })
}

/// An answer: an error of this kind.
pub(crate) async fn fails<T>(kind: ErrorKind) -> Result<T> {
    Err(fault(kind))
}

/// A transient error of this kind with a client's own error as source.
pub(crate) fn fault(kind: ErrorKind) -> Error {
    Error::new(kind, "the store failed").with_transient(true).with_source(ClientError(42))
}

/// What a store's client would say.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ClientError(pub(crate) u32);

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client error {}", self.0)
    }
}

impl std::error::Error for ClientError {}

/// Something that waits until the first half is used or dropped.
pub(crate) fn gate() -> (oneshot::Sender<()>, impl Future<Output = ()> + Send + 'static) {
    let (open, opened) = oneshot::channel();
    (open, opened.map(drop))
}

/// Resolves when nothing else can go on: only then the paused clock moves.
pub(crate) async fn idle() {
    sleep(Duration::from_millis(1)).await;
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Retries after 1, 2, 4, 5, 5 … seconds.
pub(crate) fn retries(max_retries: u32) -> Option<RetryPolicy> {
    Some(RetryPolicy::new(max_retries, seconds(1)).with_jitter(0.0))
}
