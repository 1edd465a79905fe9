//! [`Item`]: one message as one subscription owes it to its consumers.

use std::time::Duration;

use pgqueue_core::{Backoff, Requeue};

use crate::{
    check::{Verdict, ensure},
    event::Seen,
    log::Entry,
};

pub(crate) struct Item {
    pub(crate) entry: Entry,
    pub(crate) place: Place,
    pub(crate) attempts: u32,
    pub(crate) state: State,
    /// Its last delivery expired together with others, so that it must come alone.
    pub(crate) alone: bool,
    delivered: Option<Duration>,
    requeued: Option<Duration>,
}

/// Where a message stands: nothing overtakes it in its lane, if it has one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) lane: Option<u16>,
    pub(crate) seat: u64,
}

#[derive(Debug, PartialEq)]
pub(crate) enum State {
    /// It may be handed out from `earliest` on, and must be from `latest` on.
    Waiting {
        earliest: Duration,
        latest: Duration,
    },
    Held {
        delivery: u32,
    },
    Acked,
    Dead {
        /// Why, if the consumer said.
        reason: Option<String>,
    },
}

impl Item {
    pub(crate) fn new(entry: Entry, place: Place, at: Duration) -> Self {
        let state = State::Waiting { earliest: at, latest: at };
        Self { entry, place, attempts: 0, state, alone: false, delivered: None, requeued: None }
    }

    /// Checks that the message may come now and like this, and lets it.
    pub(crate) fn hand_out(&mut self, at: Duration, delivery: u32, seen: &Seen, batch: usize) -> Verdict {
        let number = seen.number;
        match &self.state {
            State::Waiting { earliest, .. } => {
                ensure!(at >= *earliest, "message {number} comes though it is not due before {earliest:?}");
            }
            State::Held { delivery } => {
                return Err(format!("message {number} is still in hand as delivery {delivery}"));
            }
            State::Acked => return Err(format!("message {number} comes again after an OK")),
            State::Dead { .. } => return Err(format!("message {number} comes again after its death")),
        }
        let attempt = self.attempts + 1;
        ensure!(seen.attempt == attempt, "message {number} comes as attempt {}, not {attempt}", seen.attempt);
        ensure!(!self.alone || batch == 1, "message {number} comes with others after it expired with others");
        let since = |time: Option<Duration>| time.map(|time| time - self.entry.published);
        let (last, expected) = (seen.last_delivered, since(self.delivered));
        ensure!(last == expected, "message {number} says it was delivered after {last:?}, not {expected:?}");
        let (last, expected) = (seen.last_requeued, since(self.requeued));
        ensure!(last == expected, "message {number} says it was requeued after {last:?}, not {expected:?}");
        self.attempts = attempt;
        self.state = State::Held { delivery };
        self.delivered = Some(at);
        self.alone = false;
        Ok(())
    }

    /// Lets it wait for as long as was asked for, or else as long as the backoff says for it, or for the most tried of
    /// those it came with.
    pub(crate) fn requeue(&mut self, at: Duration, requeue: &Requeue, backoff: &Backoff, most_attempts: u32) {
        let delay = |attempts, jitter| backoff.with_jitter(0.0).delay(attempts).mul_f64(1.0 + jitter);
        let (shortest, longest) = match requeue.delay {
            Some(delay) => (delay, delay),
            None => (delay(self.attempts, -backoff.jitter()), delay(most_attempts, backoff.jitter())),
        };
        self.state = State::Waiting { earliest: at + shortest, latest: at + longest };
        self.requeued = Some(at);
    }

    /// Lets it come again, as its consumer went silent. The attempt counts if it had only this message in hand.
    pub(crate) fn expire(&mut self, at: Duration, alone: bool) {
        self.attempts -= u32::from(!alone);
        self.alone = !alone;
        self.state = State::Waiting { earliest: at, latest: at };
    }

    /// Lets it come again from its first attempt, at the end of its lane.
    pub(crate) fn redrive(&mut self, at: Duration, seat: u64) {
        self.place.seat = seat;
        self.attempts = 0;
        (self.delivered, self.requeued) = (None, None);
        self.alone = false;
        self.state = State::Waiting { earliest: at, latest: at };
    }
}
