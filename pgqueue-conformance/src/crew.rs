//! Consumers that share a subscription, and the audit of what they did.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::StreamExt;
use pgqueue_core::{Ack, Delivery, MessageId, Subscription};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    failure::{CaseFailure, CaseResult, chain, check},
    kit::{Kit, texts_of},
};

/// How a crew answers its deliveries, by a running number; `None` drops.
pub(crate) type Answer = fn(usize) -> Option<Ack>;

/// Acknowledges every delivery.
pub(crate) const OK: Answer = |_| Some(Ack::Ok);

/// Requeues and drops some deliveries on the way.
pub(crate) const MOODY: Answer = |n| match n % 7 {
    3 => None,
    5 => Some(Ack::requeue()),
    _ => Some(Ack::Ok),
};

/// What a crew has done.
#[derive(Default)]
struct Audit {
    deliveries: AtomicUsize,
    in_hand: Mutex<HashSet<MessageId>>,
    /// The texts of acknowledged messages, in the order in which they were.
    acked: watch::Sender<Vec<String>>,
}

impl Kit {
    /// Lets several consumers, on tasks of their own, work until `messages` messages are acknowledged. Returns their texts
    /// in that order; fails if two consumers hold a message at the same time.
    pub(crate) async fn share(
        &self,
        subscription: &Subscription,
        consumers: usize,
        messages: usize,
        answer: Answer,
    ) -> CaseResult<Vec<String>> {
        let audit = Arc::new(Audit::default());
        let mut tasks = JoinSet::new();
        for _ in 0..consumers {
            let mut acked = audit.acked.subscribe();
            let all_acked = async move {
                acked.wait_for(|acked| acked.len() >= messages).await.ok();
            };
            let mut stream = self.consume(subscription).await?.until(Box::pin(all_acked));
            let audit = Arc::clone(&audit);
            tasks.spawn(async move {
                while let Some(delivery) = stream.next().await {
                    audit.answer(delivery?, answer).await?;
                }
                Ok::<_, CaseFailure>(())
            });
        }
        let mut progress = audit.acked.subscribe();
        while !tasks.is_empty() {
            tokio::select! {
                biased;
                ended = tasks.join_next() => if let Some(ended) = ended {
                    ended.map_err(|error| CaseFailure::new(format!("a consumer's {}", chain(&error))))??;
                },
                moved = self.patiently(progress.changed()) => {
                    let done = audit.acked.borrow().len();
                    check!(moved.is_some(), "{done} of {messages} messages acknowledged, and then nothing");
                }
            }
        }
        Ok(audit.acked.borrow().clone())
    }
}

impl Audit {
    async fn answer(&self, delivery: Delivery, answer: Answer) -> CaseResult {
        let texts = texts_of(&delivery);
        let ids: Vec<_> = delivery.messages().iter().map(|message| message.id().clone()).collect();
        let fresh = self.with_in_hand(|in_hand| ids.iter().all(|id| in_hand.insert(id.clone())));
        check!(fresh, "{texts:?} in the hands of two consumers");
        tokio::task::yield_now().await; // others may come in between

        // The books are closed before the answer: after it others may have the message.
        self.with_in_hand(|in_hand| in_hand.retain(|id| !ids.contains(id)));
        match answer(self.deliveries.fetch_add(1, Ordering::Relaxed)) {
            Some(Ack::Ok) => {
                self.acked.send_modify(|acked| acked.extend(texts));
                delivery.ok().await?;
            }
            Some(ack) => delivery.settle(ack).await?,
            None => drop(delivery),
        }
        Ok(())
    }

    fn with_in_hand<T>(&self, act: impl FnOnce(&mut HashSet<MessageId>) -> T) -> T {
        act(&mut self.in_hand.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
