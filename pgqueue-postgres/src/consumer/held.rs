//! [`Held`]: what one consumer has in hand: leases, the messages it has not delivered yet, and answers on their way.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use pgqueue_core::{Message, Result};
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

/// Names one claim of a lease: its number on the server, and the token that this claim gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LeaseId {
    pub(crate) number: i64,
    pub(crate) token: Uuid,
}

/// A message in hand, and its number on the server.
pub(crate) type Numbered = (i64, Message);

/// Messages that were claimed together, of which some are not delivered yet; never empty.
pub(crate) struct Run {
    pub(crate) lease: LeaseId,
    /// The lane, if it has an order.
    pub(crate) lane: Option<i32>,
    pub(crate) messages: VecDeque<Numbered>,
}

/// What the consumer knows of a lease.
pub(crate) struct Lease {
    lane: Option<i32>,
    /// How many of its messages are not settled.
    pub(crate) unsettled: usize,
    /// Whether it is somebody else's by now.
    lost: watch::Sender<bool>,
}

/// One answer, to one or more messages that were delivered together.
pub(crate) struct Answer {
    pub(crate) lease: LeaseId,
    pub(crate) ids: Vec<i64>,
    pub(crate) verdict: Verdict,
    /// Who waits for it to be durable: nobody, if the delivery was dropped.
    pub(crate) reply: Option<oneshot::Sender<Result<()>>>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    Ok,
    Requeue {
        delay: Option<Duration>,
        reason: Option<String>,
    },
    Reject {
        reason: String,
    },
    /// As if it had never been handed out.
    Release,
}

/// An answer that was given inside of the caller's transaction, and takes effect if that commits.
#[derive(Clone, Debug)]
pub(crate) struct InDoubt {
    pub(crate) lease: LeaseId,
    pub(crate) ids: Vec<i64>,
    /// The transaction, unless the server's answer was not awaited.
    pub(crate) transaction: Option<i64>,
}

#[derive(Default)]
pub(crate) struct Held {
    pub(crate) leases: HashMap<LeaseId, Lease>,
    runs: VecDeque<Run>,
    /// How many messages the runs hold.
    buffered: usize,
    /// Ordered lanes of which a delivery is out: the next waits until it is settled.
    lanes_out: HashSet<i32>,
    /// Answers that are not sent yet.
    pub(crate) answers: Vec<Answer>,
    pub(crate) in_doubt: Vec<InDoubt>,
    /// How many deliveries are out.
    pub(crate) out: usize,
    /// Counts what became deliverable, so that it is announced once.
    pub(crate) arrivals: u64,
    /// How many runs were taken in.
    pub(crate) runs_taken: u64,
    /// Whether a lane became free, or something was given back, since the last look began: another may find it.
    pub(crate) has_freed: bool,
}

/// What is handed out as one.
pub(crate) struct Portion {
    pub(crate) lease: LeaseId,
    pub(crate) messages: Vec<Numbered>,
    /// Tells when the lease is somebody else's.
    pub(crate) lost: watch::Receiver<bool>,
}

impl Held {
    pub(crate) fn buffered(&self) -> usize {
        self.buffered
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.out == 0 && self.answers.is_empty() && self.in_doubt.is_empty()
    }

    /// Takes in a run that was claimed.
    pub(crate) fn push(&mut self, run: Run) {
        let unsettled = run.messages.len();
        self.buffered += unsettled;
        self.arrivals += 1;
        self.runs_taken += 1;
        self.leases.insert(run.lease, Lease { lane: run.lane, unsettled, lost: watch::Sender::new(false) });
        self.runs.push_back(run);
    }

    /// The first run that may go: in an ordered lane nothing overtakes what is out.
    fn deliverable(&self) -> Option<usize> {
        self.runs.iter().position(|run| run.lane.is_none_or(|lane| !self.lanes_out.contains(&lane)))
    }

    pub(crate) fn has_deliverable(&self) -> bool {
        self.deliverable().is_some()
    }

    fn lane(&self, lease: LeaseId) -> Option<i32> {
        self.leases.get(&lease).and_then(|lease| lease.lane)
    }

    /// Takes out the next delivery, of at most `batch` messages.
    pub(crate) fn pop(&mut self, batch: usize) -> Option<Portion> {
        let at = self.deliverable()?;
        let run = self.runs.get_mut(at)?;
        let (lease, lane) = (run.lease, run.lane);
        let lost = self.leases.get(&lease)?.lost.subscribe();
        let messages: Vec<_> = run.messages.drain(..batch.clamp(1, run.messages.len())).collect();
        if run.messages.is_empty() {
            self.runs.remove(at);
        }
        self.buffered -= messages.len();
        self.out += 1;
        self.lanes_out.extend(lane);
        Some(Portion { lease, messages, lost })
    }

    /// Notes an answer to a delivery that was out.
    pub(crate) fn answer(&mut self, answer: Answer) {
        self.out -= 1;
        let comes_back = matches!(answer.verdict, Verdict::Requeue { .. });
        let lease = answer.lease;
        self.answers.push(answer);
        if comes_back {
            self.release_rest(lease);
        }
    }

    /// What comes back to an ordered lane takes the rest of its run along.
    fn release_rest(&mut self, lease: LeaseId) {
        if self.lane(lease).is_some() {
            self.release(|run| run.lease == lease);
        }
    }

    /// Notes that messages which were out came back by themselves.
    pub(crate) fn came_back(&mut self, lease: LeaseId, messages: usize) {
        self.release_rest(lease);
        self.settled(lease, messages);
        self.has_freed = true;
    }

    /// Gives back what was not delivered, of the runs that `which` names.
    pub(crate) fn release(&mut self, which: impl Fn(&Run) -> bool) {
        let (released, kept) = std::mem::take(&mut self.runs).into_iter().partition::<VecDeque<_>, _>(which);
        self.runs = kept;
        for run in released {
            self.buffered -= run.messages.len();
            let ids = run.messages.into_iter().map(|(id, _)| id).collect();
            self.answers.push(Answer { lease: run.lease, ids, verdict: Verdict::Release, reply: None });
        }
    }

    /// Notes that messages of a lease are settled.
    pub(crate) fn settled(&mut self, lease: LeaseId, messages: usize) {
        let Some(held) = self.leases.get_mut(&lease) else { return };
        held.unsettled = held.unsettled.saturating_sub(messages);
        let lane = held.lane;
        let has_ended = held.unsettled == 0;
        if has_ended {
            self.leases.remove(&lease);
        }
        if let Some(lane) = lane {
            self.lanes_out.remove(&lane);
            self.arrivals += 1; // the next of its lane may go
            self.has_freed |= has_ended;
        }
    }

    /// Notes that somebody else has a lease by now, and forgets what was not delivered of it.
    pub(crate) fn lost(&mut self, lease: LeaseId) {
        let Some(held) = self.leases.remove(&lease) else { return };
        held.lost.send_replace(true);
        if let Some(lane) = held.lane {
            self.lanes_out.remove(&lane);
            self.arrivals += 1; // the next of its lane may go
        }
        self.has_freed = true;
        self.runs.retain(|run| {
            if run.lease == lease {
                self.buffered -= run.messages.len();
            }
            run.lease != lease
        });
    }

    /// Forgets everything, as if the consumer had died.
    pub(crate) fn abandon(&mut self) {
        let out = self.out;
        *self = Self { out, ..Self::default() };
    }

    /// Tells every handler that its lease may be somebody else's by now.
    pub(crate) fn doubt_all(&self) {
        for lease in self.leases.values() {
            lease.lost.send_replace(true);
        }
    }
}

/// Tells whoever waits for an answer how it ended.
pub(crate) fn reply(answer: &mut Answer, result: Result<()>) {
    if let Some(reply) = answer.reply.take() {
        reply.send(result).ok(); // who does not wait any more does not need it
    }
}
