//! What must hold of a ledger as a whole.

use std::time::Duration;

use pgqueue_core::Order;

use super::{GRACE, Ledger};
use crate::{
    check::{Verdict, ensure},
    event::Account,
    item::State,
};

impl Ledger {
    /// With a consumer who has time, nothing waits longer than it must.
    pub(crate) fn check_prompt(&self, now: Duration, since: Duration) -> Verdict {
        let keyless = self.unsettled.keys().any(|place| place.lane.is_none());
        if keyless && self.options.order() == Order::ByKey {
            return Ok(()); // nobody knows which lane that holds up
        }
        let mut last_lane = None;
        for (place, number) in &self.unsettled {
            let is_first = place.lane.is_none() || place.lane != last_lane;
            last_lane = place.lane;
            let State::Waiting { latest, .. } = self.items[number].state else { continue };
            let freed = place.lane.and_then(|lane| self.freed.get(&lane).copied()).unwrap_or_default();
            let due = latest.max(freed).max(since);
            ensure!(!is_first || due + GRACE >= now, "message {number} is due since {due:?} and nobody got it");
        }
        Ok(())
    }

    /// In the end everything is acked or dead.
    pub(crate) fn check_drained(&self) -> Verdict {
        match self.unsettled.values().next() {
            Some(number) => Err(format!("message {number} was never settled: it is {:?}", self.items[number].state)),
            None => Ok(()),
        }
    }

    /// When everything is acked or dead, the queue says the same.
    pub(crate) fn check_account(&self, account: &Account) -> Verdict {
        self.check_drained()?;
        let Account { pending, in_flight, acked, dead, listeners, .. } = account;
        ensure!(pending.is_empty(), "{pending:?} are said to be pending");
        ensure!(in_flight.is_empty(), "{in_flight:?} are said to be in flight");
        ensure!(*acked == self.acked, "{acked:?} are said to be acked, not {:?}", self.acked);
        ensure!(*listeners == 0, "{listeners} streams are said to listen");
        ensure!(dead.len() == self.dead.len(), "{} messages are said to be dead, not {}", dead.len(), self.dead.len());
        for (number, (id, attempts, reason)) in self.dead.iter().zip(dead) {
            let item = &self.items[number];
            ensure!(item.entry.id == *id, "{id:?} is said to have died in place of {:?}", item.entry.id);
            ensure!(item.attempts == *attempts, "{id:?} died after {} attempts, not {attempts}", item.attempts);
            if let State::Dead { reason: Some(expected) } = &item.state {
                ensure!(reason == expected, "{id:?} died because of {expected:?}, not {reason:?}");
            }
        }
        Ok(())
    }
}
