//! [`Lane`]: a queue within a subscription, and the rule of who may go next.

use std::collections::{BTreeMap, VecDeque};

use tokio::time::Instant;

use crate::entry::Entry;

/// The waiting messages of a subscription, or of one bucket of it.
///
/// An unordered lane has any number of runs in hand, and messages overtake those that wait for a retry. An ordered lane
/// has one run in hand at a time, and what comes back to it goes first.
#[derive(Debug)]
pub(crate) struct Lane {
    ordered: bool,
    in_hand: usize,
    /// Runs that came back, the next one first: in order of arrival if the lane is ordered (`None` as instant), else as they
    /// become due.
    returned: BTreeMap<(Option<Instant>, u64), Run>,
    /// Messages that were never handed out, in order of arrival.
    fresh: VecDeque<Entry>,
}

/// Messages that were handed out together and wait together; never empty.
#[derive(Debug)]
struct Run {
    due: Instant,
    entries: Vec<Entry>,
}

impl Lane {
    pub(crate) fn new(ordered: bool) -> Self {
        Self { ordered, in_hand: 0, returned: BTreeMap::new(), fresh: VecDeque::new() }
    }

    /// Forgets everything, what is in hand included. Returns what waited.
    pub(crate) fn clear(&mut self) -> Self {
        std::mem::replace(self, Self::new(self.ordered))
    }

    /// Appends a message that was just published.
    pub(crate) fn push(&mut self, entry: Entry) {
        self.fresh.push_back(entry);
    }

    /// Whether a run may go now.
    pub(crate) fn can_claim(&self, now: Instant) -> bool {
        match self.returned.first_key_value() {
            _ if self.ordered && self.in_hand > 0 => false,
            Some((_, next)) if next.due <= now => true,
            Some(_) if self.ordered => false,
            _ => !self.fresh.is_empty(),
        }
    }

    /// Takes the next run in hand, at most `limit` messages, if one may go now.
    pub(crate) fn claim(&mut self, now: Instant, limit: usize) -> Option<Vec<Entry>> {
        if !self.can_claim(now) {
            return None;
        }
        let due = self.returned.first_entry().filter(|next| next.get().due <= now);
        let entries = match due.map(|next| next.remove()) {
            Some(Run { due, mut entries }) => {
                let rest = entries.split_off(limit.min(entries.len()));
                self.put_back(due, rest);
                entries
            }
            None => self.fresh.drain(..limit.min(self.fresh.len())).collect(),
        };
        self.in_hand += 1;
        Some(entries)
    }

    /// The first moment after `past` at which time alone lets a run go.
    pub(crate) fn due_after(&self, past: Instant) -> Option<Instant> {
        if !self.ordered {
            return self.returned.range((Some(past), u64::MAX)..).next().map(|(_, run)| run.due);
        }
        let next = self.returned.first_key_value().filter(|_| self.in_hand == 0);
        next.map(|(_, run)| run.due).filter(|due| *due > past)
    }

    /// One run less is in hand: its messages are settled, or were [put back](Self::put_back).
    pub(crate) fn release(&mut self) {
        self.in_hand -= 1;
    }

    /// Lets messages wait as one run until `due`.
    pub(crate) fn put_back(&mut self, due: Instant, entries: Vec<Entry>) {
        if let Some(first) = entries.first() {
            let key = ((!self.ordered).then_some(due), first.arrival);
            self.returned.insert(key, Run { due, entries });
        }
    }

    /// Takes out what was never handed out and stands in the log up to `position`.
    pub(crate) fn cut(&mut self, position: u64) -> Vec<Entry> {
        let reach = self.fresh.iter().take_while(|entry| entry.position.is_none_or(|its| its <= position)).count();
        let (cut, redriven): (Vec<_>, Vec<_>) = self.fresh.drain(..reach).partition(|entry| entry.position.is_some());
        redriven.into_iter().rev().for_each(|entry| self.fresh.push_front(entry));
        cut
    }

    /// How many messages were never handed out, and how many came back.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.fresh.len(), self.returned.values().map(|run| run.entries.len()).sum())
    }

    /// All that waits, in no particular order.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &Entry> {
        self.returned.values().flat_map(|run| &run.entries).chain(&self.fresh)
    }
}
