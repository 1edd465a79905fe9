//! [`Activity`]: which consumers of a subscription live, and which of them came first.

use std::collections::{BTreeSet, HashMap};

use tokio::time::Instant;

use crate::lease::ConsumerId;

/// The consumers of a subscription, from their first fetch until they leave or have been silent for their whole lease.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    present: HashMap<ConsumerId, Presence>,
    /// Who came first of those present: the one that gets all where one does.
    first: Option<ConsumerId>,
    /// How many came in all.
    arrivals: u64,
    /// When those who are silent are taken for dead, the next one first.
    deadlines: BTreeSet<(Instant, ConsumerId)>,
}

#[derive(Debug)]
struct Presence {
    arrival: u64,
    /// How many leases it holds.
    in_hand: usize,
    /// Whether its driver is gone, so that it stays for what it holds only.
    leaving: bool,
    /// When it is taken for dead. `None` while it beats.
    deadline: Option<Instant>,
}

impl Activity {
    /// Notes that a consumer fetches: of one that does not beat, a sign of life until `deadline`.
    pub(crate) fn enter(&mut self, id: ConsumerId, deadline: Option<Instant>) {
        let arrivals = &mut self.arrivals;
        self.present.entry(id).or_insert_with(|| {
            *arrivals += 1;
            Presence { arrival: *arrivals, in_hand: 0, leaving: false, deadline: None }
        });
        self.first.get_or_insert(id);
        self.set_deadline(id, deadline);
    }

    /// Whether no other consumer came before this one.
    pub(crate) fn is_first(&self, id: ConsumerId) -> bool {
        self.first.is_none_or(|first| first == id)
    }

    /// Notes that a consumer holds one lease more.
    pub(crate) fn take(&mut self, id: ConsumerId) {
        if let Some(presence) = self.present.get_mut(&id) {
            presence.in_hand += 1;
        }
    }

    /// Notes that a consumer holds one lease less. Returns whether another is the first now.
    pub(crate) fn release(&mut self, id: ConsumerId) -> bool {
        let Some(presence) = self.present.get_mut(&id) else { return false };
        presence.in_hand -= 1;
        presence.leaving && presence.in_hand == 0 && self.remove(id)
    }

    /// Notes that a consumer's driver is gone. Returns whether another is the first now.
    pub(crate) fn leave(&mut self, id: ConsumerId) -> bool {
        let Some(presence) = self.present.get_mut(&id) else { return false };
        presence.leaving = true;
        presence.in_hand == 0 && self.remove(id)
    }

    /// Sets when a consumer is taken for dead unless it beats before.
    pub(crate) fn set_deadline(&mut self, id: ConsumerId, deadline: Option<Instant>) {
        let Some(presence) = self.present.get_mut(&id) else { return };
        if let Some(earlier) = std::mem::replace(&mut presence.deadline, deadline) {
            self.deadlines.remove(&(earlier, id));
        }
        self.deadlines.extend(deadline.map(|deadline| (deadline, id)));
    }

    /// Removes the silent ones whose deadline is over. Returns whether another is the first now.
    pub(crate) fn expire(&mut self, is_over: impl Fn(Instant) -> bool) -> bool {
        let mut another = false;
        while let Some((_, id)) = self.deadlines.first().copied().filter(|(deadline, _)| is_over(*deadline)) {
            another |= self.remove(id);
        }
        another
    }

    /// Removes a consumer. Returns whether another is the first now.
    fn remove(&mut self, id: ConsumerId) -> bool {
        if let Some(deadline) = self.present.remove(&id).and_then(|presence| presence.deadline) {
            self.deadlines.remove(&(deadline, id));
        }
        if self.first != Some(id) {
            return false;
        }
        self.first = self.present.iter().min_by_key(|(_, presence)| presence.arrival).map(|(id, _)| *id);
        true
    }

    /// How many consumers live, without those that stay for what they hold only.
    pub(crate) fn living(&self) -> usize {
        self.present.values().filter(|presence| !presence.leaving).count()
    }

    /// When the next one is taken for dead.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }
}
