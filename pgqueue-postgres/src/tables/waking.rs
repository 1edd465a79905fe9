//! [`Waking`]: when the consumer of a user's table looks again.

use std::{pin::pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use pgqueue_core::{Result, Wakeup, Wakeups};
use tokio::{sync::watch, time::Instant};

use crate::{Listener, Notice, Notices};

/// By how much a poll may come later than its interval says, so that processes that started together drift apart: 2 s of 60 s.
const JITTER: f64 = 1.0 / 30.0;

/// What the wait asks of its consumer.
#[async_trait]
pub(crate) trait Waiting: Send + Sync + 'static {
    /// Returns how long it is until something becomes due by itself; `None` if nothing does.
    async fn due_in(&self) -> Result<Option<Duration>>;

    /// Is called with each poll, and once the connection that listens is back.
    async fn look_after(&self);
}

/// Waits for whatever says that there may be something: a notification, a connection that is back, the consumer itself, what
/// becomes due, and a poll. Each is enough.
pub(crate) struct Waking<W> {
    waiting: Arc<W>,
    /// `None` if there is no channel, or if the client only polls.
    bell: Option<Notices>,
    /// Changes when the consumer has reason to look.
    changed: watch::Receiver<()>,
    poll_interval: Duration,
    next_poll: Instant,
}

impl<W: Waiting> Waking<W> {
    /// Listens from now on, until the stream is dropped.
    pub(crate) async fn listen(
        waiting: Arc<W>,
        listener: &Listener,
        channel: Option<&str>,
        changed: watch::Receiver<()>,
        poll_interval: Duration,
    ) -> Result<Wakeups> {
        let bell = match channel {
            Some(channel) => listener.subscribe_bell(channel).await?,
            None => None,
        };
        if let (Some(channel), None) = (channel, &bell) {
            tracing::warn!(channel, ?poll_interval, "this client cannot listen; the table is polled");
        }
        let waking =
            Self { waiting, bell, changed, poll_interval, next_poll: Instant::now() + jittered(poll_interval) };
        Ok(Box::pin(stream::unfold(waking, |mut waking| async {
            let wakeup = waking.next().await;
            Some((Ok(wakeup), waking))
        })))
    }

    async fn next(&mut self) -> Wakeup {
        let due_in = self.waiting.due_in().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "what is due next is not known, and is left to the next poll");
            None
        });
        let due = due_in.map(|due_in| Instant::now() + due_in);
        let is_poll = due.is_none_or(|due| due > self.next_poll);
        let until = due.map_or(self.next_poll, |due| due.min(self.next_poll));
        let bell = async {
            match &mut self.bell {
                Some(bell) => bell.next().await,
                None => std::future::pending().await,
            }
        };
        let wakeup = tokio::select! {
            notice = pin!(bell) => match notice {
                Some(Notice::Reconnected) => Wakeup::Reconnected,
                _ => Wakeup::Notified,
            },
            Ok(()) = self.changed.changed() => Wakeup::Tick,
            () = tokio::time::sleep_until(until) => {
                if is_poll {
                    self.waiting.look_after().await;
                    self.next_poll = Instant::now() + jittered(self.poll_interval);
                }
                Wakeup::Tick
            }
        };
        if wakeup == Wakeup::Reconnected {
            self.waiting.look_after().await;
        }
        wakeup
    }
}

fn jittered(interval: Duration) -> Duration {
    interval + interval.mul_f64(JITTER * fastrand::f64())
}
