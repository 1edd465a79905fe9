//! [`Held`]: what one consumer has in hand: leases, the messages it has not delivered yet, and answers on their way.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use pgqueue_core::{Message, Result};
use smallvec::SmallVec;
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

/// The numbers of messages that were delivered together, of which most are alone.
pub(crate) type Ids = SmallVec<[i64; 1]>;

/// Messages that were claimed together, in order; never empty.
pub(crate) struct Run {
    pub(crate) lease: LeaseId,
    /// The lane, if it has an order.
    pub(crate) lane: Option<i32>,
    pub(crate) messages: Vec<Numbered>,
}

/// What a run holds for one place and was not delivered yet, in order.
struct Line {
    lease: LeaseId,
    place: Option<Place>,
    messages: VecDeque<Numbered>,
}

/// Where one delivery is out at a time: a lane, or a key of it, as the lane is in no other consumer's hands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    lane: i32,
    key: Option<Arc<str>>,
}

/// A delivery that is out of an ordered lane.
struct Out {
    lease: LeaseId,
    ids: Ids,
}

/// What the consumer knows of a lease.
pub(crate) struct Lease {
    is_ordered: bool,
    /// How many of its messages are not settled.
    pub(crate) unsettled: usize,
    /// Whether it is somebody else's by now.
    lost: watch::Sender<bool>,
}

/// One answer, to one or more messages that were delivered together.
pub(crate) struct Answer {
    pub(crate) lease: LeaseId,
    /// Where it was out.
    pub(crate) place: Option<Place>,
    pub(crate) ids: Ids,
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
    pub(crate) place: Option<Place>,
    pub(crate) ids: Ids,
    /// The transaction, unless the server's answer was not awaited.
    pub(crate) transaction: Option<i64>,
}

#[derive(Default)]
pub(crate) struct Held {
    pub(crate) leases: BTreeMap<LeaseId, Lease>,
    /// By the run they came with, and their first message.
    lines: BTreeMap<(u64, i64), Line>,
    /// How many messages the lines hold.
    buffered: usize,
    /// What is out of a place: the next waits until it is settled.
    out_of: HashMap<Place, Out>,
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

/// What is in a handler's hand: messages that were delivered together.
pub(crate) struct Hand {
    pub(crate) lease: LeaseId,
    /// Where they are out.
    pub(crate) place: Option<Place>,
    pub(crate) ids: Ids,
}

/// What is handed out as one.
pub(crate) struct Portion {
    pub(crate) hand: Hand,
    pub(crate) messages: SmallVec<[Message; 1]>,
}

impl Held {
    pub(crate) fn buffered(&self) -> usize {
        self.buffered
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.out == 0 && self.answers.is_empty() && self.in_doubt.is_empty()
    }

    /// Takes in a run that was claimed, of whose lane several messages may be out at the same time if their keys differ: `by_key`.
    pub(crate) fn push(&mut self, run: Run, by_key: bool) {
        let Run { lease, lane, messages } = run;
        let unsettled = messages.len();
        self.buffered += unsettled;
        self.arrivals += 1;
        self.runs_taken += 1;
        self.leases.insert(lease, Lease { is_ordered: lane.is_some(), unsettled, lost: watch::Sender::new(false) });
        let mut keys: HashMap<Arc<str>, VecDeque<Numbered>> = HashMap::new();
        let mut rest = VecDeque::new();
        for (id, message) in messages {
            match message.key().filter(|_| by_key) {
                None => rest.push_back((id, message)),
                Some(key) => match keys.get_mut(key) {
                    Some(line) => line.push_back((id, message)),
                    None => drop(keys.insert(key.into(), VecDeque::from([(id, message)]))),
                },
            }
        }
        for (key, messages) in keys.into_iter().map(|(key, line)| (Some(key), line)).chain([(None, rest)]) {
            let place = lane.map(|lane| Place { lane, key });
            self.queue(self.runs_taken, Line { lease, place, messages });
        }
    }

    /// Puts a line where it is to be found, unless it is empty.
    fn queue(&mut self, run: u64, line: Line) {
        if let Some((first, _)) = line.messages.front() {
            self.lines.insert((run, *first), line);
        }
    }

    /// The first line that may go: nothing overtakes what is out of its place.
    fn deliverable(&self) -> Option<(u64, i64)> {
        let is_free = |line: &Line| line.place.as_ref().is_none_or(|place| !self.out_of.contains_key(place));
        self.lines.iter().find(|(_, line)| is_free(line)).map(|(at, _)| *at)
    }

    pub(crate) fn has_deliverable(&self) -> bool {
        self.deliverable().is_some()
    }

    /// Takes out the next delivery, of at most `batch` messages.
    pub(crate) fn pop(&mut self, batch: usize) -> Option<Portion> {
        let at = self.deliverable()?;
        let mut line = self.lines.remove(&at)?;
        let (ids, messages): (Ids, SmallVec<_>) = line.messages.drain(..batch.clamp(1, line.messages.len())).unzip();
        let (lease, place) = (line.lease, line.place.clone());
        self.queue(at.0, line);
        self.buffered -= messages.len();
        self.out += 1;
        if let Some(place) = place.clone() {
            self.out_of.insert(place, Out { lease, ids: ids.clone() });
        }
        Some(Portion { hand: Hand { lease, place, ids }, messages })
    }

    /// Tells when a lease is somebody else's; `None` if it is already.
    pub(crate) fn watch(&self, lease: LeaseId) -> Option<watch::Receiver<bool>> {
        self.leases.get(&lease).map(|lease| lease.lost.subscribe())
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
        if self.leases.get(&lease).is_some_and(|lease| lease.is_ordered) {
            self.release(|of| of == lease);
        }
    }

    /// Notes that messages which were out came back by themselves.
    pub(crate) fn came_back(&mut self, lease: LeaseId, place: Option<&Place>, messages: usize) {
        self.release_rest(lease);
        self.settled(lease, place, messages);
        self.has_freed = true;
    }

    /// Gives back what was not delivered, of the leases that `which` names: in one piece, but for what is out in between. That may
    /// come back, too, and go first where pieces go one after the other.
    pub(crate) fn release(&mut self, which: impl Fn(LeaseId) -> bool) {
        let mut released: BTreeMap<LeaseId, BTreeSet<i64>> = BTreeMap::new();
        for (_, line) in self.lines.extract_if(.., |_, line| which(line.lease)) {
            self.buffered -= line.messages.len();
            released.entry(line.lease).or_default().extend(line.messages.into_iter().map(|(id, _)| id));
        }
        for (lease, mut rest) in released {
            let mut out: Vec<i64> =
                self.out_of.values().filter(|out| out.lease == lease).flat_map(|out| out.ids.iter().copied()).collect();
            out.sort_unstable();
            let mut pieces = Vec::new();
            for id in out {
                let behind = rest.split_off(&id);
                pieces.push(std::mem::replace(&mut rest, behind));
            }
            pieces.push(rest);
            for ids in pieces.into_iter().filter(|ids| !ids.is_empty()) {
                let ids = ids.into_iter().collect();
                self.answers.push(Answer { lease, place: None, ids, verdict: Verdict::Release, reply: None });
            }
        }
    }

    /// Notes that messages of a lease are settled, which were out of a place or were released.
    pub(crate) fn settled(&mut self, lease: LeaseId, place: Option<&Place>, messages: usize) {
        let Some(held) = self.leases.get_mut(&lease) else { return };
        held.unsettled = held.unsettled.saturating_sub(messages);
        let (is_ordered, has_ended) = (held.is_ordered, held.unsettled == 0);
        if has_ended {
            self.leases.remove(&lease);
        }
        if let Some(place) = place {
            self.out_of.remove(place);
            self.arrivals += 1; // the next of it may go
        }
        self.has_freed |= is_ordered && has_ended;
    }

    /// Notes that somebody else has a lease by now, and forgets what was not delivered of it.
    pub(crate) fn lost(&mut self, lease: LeaseId) {
        let Some(held) = self.leases.remove(&lease) else { return };
        held.lost.send_replace(true);
        self.out_of.retain(|_, out| out.lease != lease);
        self.arrivals += u64::from(held.is_ordered); // the next of its lane may go
        self.has_freed = true;
        for (_, line) in self.lines.extract_if(.., |_, line| line.lease == lease) {
            self.buffered -= line.messages.len();
        }
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
