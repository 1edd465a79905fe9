//! Wake-ups over a bad line: some are lost, late or repeated, and the line breaks.
//!
//! A line that breaks says so; what it may lose is made up for by a regular look.

use std::{future::pending, time::Duration};

use fastrand::Rng;
use futures::{StreamExt, stream};
use pgqueue_core::{Error, ErrorKind, Result, Wakeup, Wakeups};
use tokio::time::{Instant, sleep, sleep_until};

use crate::link::Link;

/// How long a lost wake-up goes unnoticed at most.
const LOOK_EVERY: Duration = Duration::from_secs(2);

struct Line {
    inner: Wakeups,
    link: Link,
    /// `None` if nothing gets lost.
    next_look: Option<Instant>,
    /// What is to be repeated.
    again: Option<Wakeup>,
}

/// Lets `inner` pass as well as the link allows.
pub(crate) fn wakeups(inner: Wakeups, link: Link) -> Wakeups {
    let next_look = (link.faults.losses > 0.0).then(|| Instant::now() + LOOK_EVERY);
    let line = Line { inner, link, next_look, again: None };
    Box::pin(stream::unfold(Some(line), |line| async {
        let mut line = line?;
        match line.next().await? {
            Ok(wakeup) => Some((Ok(wakeup), Some(line))),
            Err(error) => Some((Err(error), None)),
        }
    }))
}

impl Line {
    async fn next(&mut self) -> Option<Result<Wakeup>> {
        loop {
            if let Some(again) = self.again.take() {
                return Some(Ok(again));
            }
            let wakeup = tokio::select! {
                biased;
                wakeup = self.inner.next() => match wakeup? {
                    Ok(wakeup) => wakeup,
                    Err(error) => return Some(Err(error)),
                },
                () = until(self.next_look) => {
                    self.next_look = Some(Instant::now() + LOOK_EVERY);
                    return Some(Ok(Wakeup::Tick));
                }
            };
            if self.link.strikes(self.link.faults.breaks) {
                self.link.disturbed("the wake-ups end");
                let error = Error::new(ErrorKind::Connection, "the line broke");
                return self.link.draw(Rng::bool).then_some(Err(error));
            }
            if !self.link.strikes(self.link.faults.losses) {
                return Some(Ok(wakeup));
            }
            match self.link.draw(|rng| rng.u8(..3)) {
                0 => {
                    self.again = Some(Wakeup::Reconnected);
                    return Some(Ok(wakeup));
                }
                1 => {
                    let late = self.link.draw(|rng| rng.u64(..1_000));
                    sleep(Duration::from_millis(late)).await;
                    return Some(Ok(wakeup));
                }
                _ => self.link.disturbed("a wake-up is lost"),
            }
        }
    }
}

/// Waits until `then`, if that ever comes.
async fn until(then: Option<Instant>) {
    match then {
        Some(then) => sleep_until(then).await,
        None => pending().await,
    }
}
