//! The consume loop: look, wait for a wake-up, look again; and what to do when the driver fails.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use tokio::{
    task::consume_budget,
    time::{Instant, Sleep, sleep},
};

use crate::{
    Delivery, Error, ErrorKind, Operation, Result, RetryConfig, SubscriptionDriver, Wakeup, Wakeups,
    call::{call_driver, catch_panic_now},
    error::chain,
    retry::Failures,
    telemetry,
};

/// Deliveries of one driver, one after the other, until an error that is not retried.
pub(crate) struct Feed {
    driver: Arc<dyn SubscriptionDriver>,
    retry: RetryConfig,
    /// Why the last configuration could not be taken.
    refused: Option<Error>,
    wakeups: Wakeups,
    phase: Phase,
    /// What failed since a fetch last succeeded.
    failed_fetches: Failures,
    /// What failed since a wake-up last came.
    failed_listens: Failures,
    /// Since when listening works.
    listening_since: Instant,
}

/// What is being waited for.
enum Phase {
    /// Nothing: the driver may have a delivery in hand.
    Ready,
    Fetching(BoxFuture<'static, Result<Option<Delivery>>>),
    Waiting,
    Listening(BoxFuture<'static, Result<Wakeups>>),
    Pausing(Pin<Box<Sleep>>, Failed),
}

/// What failed and is to be done again after a pause.
#[derive(Clone, Copy)]
enum Failed {
    Fetch,
    /// Listening worked until now.
    Wakeups,
    Listen,
}

impl Feed {
    pub(crate) fn new(driver: Arc<dyn SubscriptionDriver>, wakeups: Wakeups) -> Self {
        Self {
            driver,
            retry: RetryConfig::default(),
            refused: None,
            wakeups,
            phase: Phase::Ready,
            failed_fetches: Failures::default(),
            failed_listens: Failures::default(),
            listening_since: Instant::now(),
        }
    }

    /// Takes a new configuration; an impossible one is what comes next.
    pub(crate) fn set_retry(&mut self, retry: RetryConfig) {
        self.refused = retry.validate().err();
        if self.refused.is_none() {
            self.retry = retry;
        }
        if matches!(self.phase, Phase::Fetching(_)) {
            self.phase = Phase::Ready; // once more, within the new time limit
        }
    }

    pub(crate) fn time_limit(&self) -> Duration {
        self.retry.time_limit()
    }

    /// Resolves to the next delivery, or to the error that ends it all.
    ///
    /// A wake-up that comes while a fetch runs waits in the wake-up stream until the fetch has found nothing.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Delivery>> {
        if let Some(error) = self.refused.take() {
            return Poll::Ready(Err(error));
        }
        loop {
            self.phase = match &mut self.phase {
                Phase::Ready => {
                    // A driver that is always ready must not keep others from running.
                    ready!(pin!(consume_budget()).poll(cx));
                    match catch_panic_now(Operation::Fetch, || self.driver.fetch_ready()) {
                        Ok(Some(delivery)) => {
                            self.failed_fetches = Failures::default();
                            return Poll::Ready(Ok(delivery));
                        }
                        Ok(None) => self.fetch(),
                        Err(error) => self.pause(error, Failed::Fetch)?,
                    }
                }
                Phase::Fetching(call) => match ready!(call.poll_unpin(cx)) {
                    Ok(fetched) => {
                        self.failed_fetches = Failures::default();
                        match fetched {
                            Some(delivery) => {
                                self.phase = Phase::Ready;
                                return Poll::Ready(Ok(delivery));
                            }
                            None => Phase::Waiting,
                        }
                    }
                    Err(error) => self.pause(error, Failed::Fetch)?,
                },
                Phase::Waiting => match ready!(self.poll_wakeup(cx)) {
                    Ok(_) => {
                        self.failed_listens = Failures::default();
                        Phase::Ready
                    }
                    Err(error) => self.pause(error, Failed::Wakeups)?,
                },
                Phase::Listening(call) => match ready!(call.poll_unpin(cx)) {
                    Ok(wakeups) => {
                        self.wakeups = wakeups;
                        self.listening_since = Instant::now();
                        Phase::Ready
                    }
                    Err(error) => self.pause(error, Failed::Listen)?,
                },
                Phase::Pausing(pause, failed) => {
                    ready!(pause.poll_unpin(cx));
                    match failed {
                        Failed::Fetch => Phase::Ready,
                        Failed::Wakeups | Failed::Listen => self.listen(),
                    }
                }
            };
        }
    }

    fn fetch(&self) -> Phase {
        let driver = Arc::clone(&self.driver);
        let limit = self.time_limit();
        Phase::Fetching(Box::pin(async move {
            call_driver(Operation::Fetch, limit, async { driver.fetch_pending().await }).await
        }))
    }

    fn listen(&self) -> Phase {
        let driver = Arc::clone(&self.driver);
        let limit = self.time_limit();
        Phase::Listening(Box::pin(async move {
            call_driver(Operation::Listen, limit, async { driver.listen().await }).await
        }))
    }

    /// The next wake-up, or why there is none. A panic is an error that is not retried.
    fn poll_wakeup(&mut self, cx: &mut Context<'_>) -> Poll<Result<Wakeup>> {
        let polled = catch_panic_now(Operation::Listen, || Ok(self.wakeups.poll_next_unpin(cx)));
        let wakeup = ready!(polled.unwrap_or_else(|panic| Poll::Ready(Some(Err(panic)))));
        let ended = || Err(Error::new(ErrorKind::Connection, "the wake-ups ended"));
        Poll::Ready(wakeup.unwrap_or_else(ended).map_err(|error| error.during(Operation::Listen)))
    }

    /// Pauses before the next try, or returns the error when none is left.
    fn pause(&mut self, error: Error, failed: Failed) -> Result<Phase> {
        let class = error.is_transient().then_some(error.kind());
        let pause = match failed {
            Failed::Fetch => class.and_then(|class| self.failed_fetches.pause(&self.retry, class)),
            Failed::Listen => class.and_then(|class| self.failed_listens.pause(&self.retry, class)),
            // What failed says little of what listening again will say; only a panic would be met again.
            Failed::Wakeups if error.kind() == ErrorKind::Panic => None,
            Failed::Wakeups => {
                self.wakeups = stream::pending().boxed(); // ends the listening that failed
                let held = self.listening_since.elapsed();
                if self.retry.connection().is_some_and(|policy| held > policy.settled_after()) {
                    self.failed_listens = Failures::default();
                }
                self.failed_listens.pause(&self.retry, ErrorKind::Connection)
            }
        };
        let Some(pause) = pause else { return Err(error) };
        tracing::warn!(error = chain(&error), ?pause, "consuming is interrupted and will be tried again");
        telemetry::interrupted(&error);
        Ok(Phase::Pausing(Box::pin(sleep(pause)), failed))
    }
}
