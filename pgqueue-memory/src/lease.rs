//! [`Lease`]: a run of messages in one consumer's hand.

use std::collections::{BTreeSet, HashMap};

use tokio::time::Instant;

use crate::entry::Entry;

/// The number of a lease, never used twice: what fences a consumer that lost it.
pub(crate) type LeaseId = u64;

/// The number of a consumer.
pub(crate) type ConsumerId = u64;

#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) consumer: ConsumerId,
    pub(crate) lane: usize,
    pub(crate) entries: Vec<Entry>,
    /// When it ends unless its consumer beats. `None` while the consumer does: in one process a beat cannot fail.
    pub(crate) deadline: Option<Instant>,
}

/// All leases of a subscription.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    leases: HashMap<LeaseId, Lease>,
    deadlines: BTreeSet<(Instant, LeaseId)>,
}

impl Leases {
    pub(crate) fn insert(&mut self, id: LeaseId, lease: Lease) {
        self.deadlines.extend(lease.deadline.map(|deadline| (deadline, id)));
        self.leases.insert(id, lease);
    }

    pub(crate) fn get(&self, id: LeaseId) -> Option<&Lease> {
        self.leases.get(&id)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Lease> + Clone {
        self.leases.values()
    }

    pub(crate) fn remove(&mut self, id: LeaseId) -> Option<Lease> {
        let lease = self.leases.remove(&id)?;
        if let Some(deadline) = lease.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        Some(lease)
    }

    /// Lets the leases that `which` names end at `deadline`, or never.
    pub(crate) fn set_deadline(&mut self, which: impl Fn(&Lease) -> bool, deadline: Option<Instant>) {
        for (id, lease) in self.leases.iter_mut().filter(|(_, lease)| which(lease)) {
            if let Some(earlier) = std::mem::replace(&mut lease.deadline, deadline) {
                self.deadlines.remove(&(earlier, *id));
            }
            self.deadlines.extend(deadline.map(|deadline| (deadline, *id)));
        }
    }

    /// Takes out one lease that has ended.
    pub(crate) fn pop_expired(&mut self, now: Instant) -> Option<Lease> {
        let (_, id) = self.deadlines.first().copied().filter(|(deadline, _)| *deadline <= now)?;
        self.remove(id)
    }

    /// When the next lease ends.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }
}
