//! [`Waking`]: when the consumer of a user's table looks again.

use std::{pin::pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use pgqueue_core::{Result, Wakeup, Wakeups};
use tokio::{sync::watch, time::Instant};

use super::watch::TableWatch;
use crate::{Client, Notice, Notices, PgTables, value::CENTURY};

/// By how much a poll may come later than its interval says, so that processes that started together drift apart: 2 s of 60 s.
const JITTER: f64 = 1.0 / 30.0;

/// What the wait asks of its consumer.
#[async_trait]
pub(crate) trait Waiting: Send + Sync + 'static {
    /// Returns how long it is until something becomes due by itself; `None` if nothing does.
    async fn due_in(&self) -> Result<Option<Duration>>;
}

/// What rings for the consumers of a table.
#[derive(Clone, Debug)]
pub(crate) enum Rings {
    Nothing,
    /// Whoever notifies this channel.
    Channel(String),
    /// Triggers, which are looked after.
    Triggers(TableWatch),
}

impl Rings {
    pub(crate) fn channel(&self) -> Option<&str> {
        match self {
            Self::Nothing => None,
            Self::Channel(channel) => Some(channel),
            Self::Triggers(watch) => Some(watch.channel()),
        }
    }
}

/// Waits for whatever says that there may be something: a notification, a connection that is back, the consumer itself, what
/// becomes due, and a poll. Each is enough.
pub(crate) struct Waking<C: Client, W> {
    tables: PgTables<C>,
    waiting: Arc<W>,
    rings: Rings,
    /// `None` if there is no channel, or if the client only polls.
    bell: Option<Notices>,
    /// Changes when the consumer has reason to look.
    changed: watch::Receiver<()>,
    poll_interval: Duration,
    next_poll: Instant,
}

impl<C: Client, W: Waiting> Waking<C, W> {
    /// Listens from now on, until the stream is dropped. Installs the triggers, if there are to be some.
    pub(crate) async fn listen(
        tables: PgTables<C>,
        waiting: Arc<W>,
        rings: Rings,
        changed: watch::Receiver<()>,
        poll_interval: Duration,
    ) -> Result<Wakeups> {
        if let Rings::Triggers(watch) = &rings {
            tables.watch_table(watch).await?;
        }
        let bell = match rings.channel() {
            Some(channel) => tables.listener().subscribe_bell(channel).await?,
            None => None,
        };
        if let (Some(channel), None) = (rings.channel(), &bell) {
            tracing::warn!(channel, ?poll_interval, "this client cannot listen; the table is polled");
        }
        let next_poll = Instant::now() + jittered(poll_interval);
        let waking = Self { tables, waiting, rings, bell, changed, poll_interval, next_poll };
        Ok(Box::pin(stream::unfold(waking, |mut waking| async {
            let wakeup = waking.next().await;
            Some((Ok(wakeup), waking))
        })))
    }

    async fn next(&mut self) -> Wakeup {
        let due_in = match self.changed.has_changed() {
            Ok(true) => None, // it looks at once
            _ => self.waiting.due_in().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "what is due next is not known, and is left to the next poll");
                None
            }),
        };
        let due = due_in.map(|due_in| Instant::now() + due_in.min(CENTURY));
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
                    self.look_after_triggers().await;
                    self.next_poll = Instant::now() + jittered(self.poll_interval);
                }
                Wakeup::Tick
            }
        };
        if wakeup == Wakeup::Reconnected {
            self.look_after_triggers().await;
        }
        wakeup
    }

    /// Triggers go with a table that is dropped and made again.
    async fn look_after_triggers(&self) {
        if let Rings::Triggers(watch) = &self.rings
            && let Err(error) = self.tables.ensure_triggers(watch).await
        {
            tracing::warn!(%error, "the triggers of a table could not be looked after, and it is polled");
        }
    }
}

fn jittered(interval: Duration) -> Duration {
    let interval = interval.min(CENTURY);
    interval + interval.mul_f64(JITTER * fastrand::f64())
}
