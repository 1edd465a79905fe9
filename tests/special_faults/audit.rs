//! [`Audit`]: what was handled and how often, and consumers that tell it.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::StreamExt;
use pgqueue_core::{ConsumeStream, Error, RetryConfig, RetryPolicy, Subscription, subscribe};
use pgqueue_postgres::{Client, PgQueue};
use pgqueue_testserver::Server;
use tokio::{sync::watch, task::JoinHandle};

use crate::common::{number, patiently};

/// How often each message was handled: delivered and answered with OK.
#[derive(Clone)]
pub(crate) struct Audit {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    handled: BTreeMap<u64, usize>,
    delivered: BTreeMap<u64, usize>,
    /// In the order in which they were answered.
    order: Vec<u64>,
}

impl Audit {
    pub(crate) fn new() -> Self {
        Self { state: Arc::default(), changed: watch::Sender::new(()) }
    }

    pub(crate) fn delivered(&self, number: u64) {
        *self.state.lock().unwrap().delivered.entry(number).or_default() += 1;
    }

    pub(crate) fn handled(&self, number: u64) {
        let mut state = self.state.lock().unwrap();
        *state.handled.entry(number).or_default() += 1;
        state.order.push(number);
        drop(state);
        self.changed.send_replace(());
    }

    pub(crate) fn count(&self) -> usize {
        self.state.lock().unwrap().handled.len()
    }

    pub(crate) fn order(&self) -> Vec<u64> {
        self.state.lock().unwrap().order.clone()
    }

    /// Waits until all of these were handled.
    pub(crate) async fn until_handled(&self, numbers: Range<u64>) {
        let mut changed = self.changed.subscribe();
        let all = async {
            while !numbers.clone().all(|number| self.state.lock().unwrap().handled.contains_key(&number)) {
                changed.changed().await.unwrap();
            }
        };
        patiently(&format!("all of {numbers:?}, of which {} were handled", self.count()), all).await;
    }

    /// Checks that these and no others were handled, each once, and delivered so often at most.
    pub(crate) fn check(&self, numbers: Range<u64>, deliveries: usize) {
        let state = self.state.lock().unwrap();
        assert!(state.handled.keys().copied().eq(numbers.clone()), "{:?} are not {numbers:?}", state.handled.keys());
        let twice: Vec<_> = state.handled.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "handled more than once: {twice:?}");
        let again: Vec<_> = state.delivered.iter().filter(|(_, count)| **count > deliveries).collect();
        assert!(again.is_empty(), "delivered more than {deliveries} times: {again:?}");
    }
}

/// A consumer that never gives up while errors are transient.
pub(crate) async fn patient<C: Client>(queue: &PgQueue<C>, subscription: Subscription) -> ConsumeStream {
    let policy = Some(RetryPolicy::new(1000, Duration::from_millis(50)).with_cap(Duration::from_millis(500)));
    let retry = RetryConfig::default().with_connection(policy).with_query(policy).with_timeout(policy);
    let stream = async {
        loop {
            match subscribe(queue.subscription(subscription.clone())).await {
                Ok(stream) => return stream,
                Err(error) => assert!(error.is_transient(), "{error}"),
            }
        }
    };
    patiently("a stream", stream).await.with_retry(retry)
}

/// Handles what comes, until the stream ends; an answer that fails means that the message comes again.
pub(crate) fn work(mut stream: ConsumeStream, audit: &Audit) -> JoinHandle<Option<Error>> {
    let audit = audit.clone();
    tokio::spawn(async move {
        while let Some(delivery) = stream.next().await {
            let delivery = match delivery {
                Ok(delivery) => delivery,
                Err(error) => return Some(error),
            };
            let number = number(&delivery);
            audit.delivered(number);
            if delivery.ok().await.is_ok() {
                audit.handled(number);
            }
        }
        None
    })
}

/// A server of its own with a queue in the database "queue", and the topic "orders".
pub(crate) async fn own_server<C: Client>(settings: &[(&str, &str)]) -> (Server, PgQueue<C>) {
    let builder = settings.iter().fold(Server::builder(), |builder, (name, value)| builder.with_setting(*name, *value));
    let server = builder.start().await.unwrap();
    let queue = queue_in(&server).await;
    (server, queue)
}

pub(crate) async fn queue_in<C: Client>(server: &Server) -> PgQueue<C> {
    server.create_database("queue").await.unwrap();
    let queue = PgQueue::connect(&server.url("queue")).await.unwrap();
    queue.migrate().await.unwrap();
    queue.create_topic(pgqueue_core::Topic::new("orders")).await.unwrap();
    queue
}
