//! Coalescing: calls of `publish` that come at the same time share a statement.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use pgqueue_core::{Error, ErrorKind, MessageId, NewMessage, Result};
use tokio::sync::oneshot;

use crate::{Client, error::repeat, publishing::payload_bytes, queue::Shared};

/// The most messages that share a statement, and the most bytes of payload, unless one call brings more.
const MOST: usize = 1000;
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// What waits for the statement before it to end.
#[derive(Default)]
pub(crate) struct Coalescing {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: Vec<Waiting>,
    /// Whether a task is at work.
    served: bool,
}

struct Waiting {
    topic: String,
    messages: Vec<NewMessage>,
    reply: oneshot::Sender<Result<Vec<MessageId>>>,
}

impl Waiting {
    fn bytes(&self) -> usize {
        payload_bytes(&self.messages)
    }
}

/// Publishes together with whoever else does so now. The messages are valid.
pub(crate) async fn publish<C: Client>(
    shared: &Arc<Shared<C>>,
    topic: &str,
    messages: Vec<NewMessage>,
) -> Result<Vec<MessageId>> {
    let (reply, published) = oneshot::channel();
    let is_first = {
        let mut state = shared.coalescing.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting.push(Waiting { topic: topic.to_owned(), messages, reply });
        !std::mem::replace(&mut state.served, true)
    };
    if is_first {
        tokio::spawn(serve(Arc::clone(shared))); // a task, as any caller may stop waiting
    }
    let gone = || {
        Err(Error::new(ErrorKind::Unknown, "the task that publishes ended; whether this was published is not known"))
    };
    published.await.unwrap_or_else(|_| gone())
}

/// Publishes what waits, a topic at a time, until nothing does.
async fn serve<C: Client>(shared: Arc<Shared<C>>) {
    loop {
        // Whoever publishes on this thread comes along.
        tokio::task::yield_now().await;
        let waiting = {
            let mut state = shared.coalescing.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.served = !state.waiting.is_empty();
            std::mem::take(&mut state.waiting)
        };
        if waiting.is_empty() {
            return;
        }
        let mut topics: HashMap<String, Vec<Waiting>> = HashMap::new();
        for one in waiting {
            topics.entry(one.topic.clone()).or_default().push(one);
        }
        for (topic, waiting) in topics {
            let mut rest = waiting.into_iter().peekable();
            while rest.peek().is_some() {
                let mut messages = Vec::new();
                let mut shares = Vec::new();
                let mut bytes = 0;
                while let Some(one) = rest.next_if(|one| {
                    let fits = messages.len() + one.messages.len() <= MOST && bytes + one.bytes() <= MOST_BYTES;
                    messages.is_empty() || fits
                }) {
                    bytes += one.bytes();
                    shares.push((one.messages.len(), one.reply));
                    messages.extend(one.messages);
                }
                share(shared.publish_now(&topic, &messages).await, shares);
            }
        }
    }
}

/// Gives everybody the ids of their own messages, or the error.
fn share(published: Result<Vec<MessageId>>, shares: Vec<(usize, oneshot::Sender<Result<Vec<MessageId>>>)>) {
    match published {
        Ok(mut ids) => {
            for (count, reply) in shares {
                let rest = ids.split_off(count.min(ids.len()));
                reply.send(Ok(std::mem::replace(&mut ids, rest))).ok(); // who does not wait any more has published all the same
            }
        }
        Err(error) => {
            for (_, reply) in shares {
                reply.send(Err(repeat(&error))).ok();
            }
        }
    }
}
