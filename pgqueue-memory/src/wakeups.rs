//! The wake-ups of one consumer: the subscription's bell, and the moments when something becomes due.

use std::sync::Arc;

use futures::stream;
use pgqueue_core::{Error, Result, Wakeup, Wakeups};
use tokio::{sync::watch, time::Instant};

use crate::{
    consumer::Consumer,
    store::{Store, sleep_until},
};

struct Listening {
    store: Arc<Store>,
    consumer: Arc<Consumer>,
    bell: watch::Receiver<()>,
    /// What was due by then was announced: by the look that follows listening, or by an earlier wake-up.
    announced: Instant,
}

/// Listens from now on, until the stream is dropped.
pub(crate) fn wakeups(store: Arc<Store>, consumer: Arc<Consumer>) -> Result<Wakeups> {
    let (bell, announced) = {
        let (mut state, now) = store.lock();
        (state.consumed_by(&consumer, now)?.bell(), now.instant)
    };
    let listening = Listening { store, consumer, bell, announced };
    Ok(Box::pin(stream::unfold(Some(listening), |listening| async {
        let mut listening = listening?;
        match listening.next().await {
            Ok(wakeup) => Some((Ok(wakeup), Some(listening))),
            Err(error) => Some((Err(error), None)),
        }
    })))
}

impl Listening {
    /// Waits until a run may go that was not announced: one that is held back behind its key makes no noise.
    async fn next(&mut self) -> Result<Wakeup> {
        loop {
            let due = self.store.lock().0.due_after(self.consumer.subscription(), self.announced)?;
            let wakeup = tokio::select! {
            biased;
                            rung = self.bell.changed() => {
                                rung.map_err(|_| Error::subscription_not_found(self.consumer.subscription()))?;
                                Wakeup::Notified
                            }
                            () = sleep_until(due) => Wakeup::Tick,
                        };
            let (mut state, now) = self.store.lock();
            let subscription = state.consumed_by(&self.consumer, now)?;
            self.announced = now.instant;
            if subscription.has_news_for(self.consumer.id, now.instant) {
                return Ok(wakeup);
            }
        }
    }
}
