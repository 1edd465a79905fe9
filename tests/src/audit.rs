//! [`Audit`]: whether a history is what was promised.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use crate::{
    event::{Fate, Moment},
    history::{Handed, History, Sent},
    part::Shape,
};

#[cfg(test)]
mod tests;

/// What was found in a history. All but the counts are breaches of a promise.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    /// Committed, and no OK of it can have taken effect.
    pub(crate) lost: Vec<String>,
    /// Handed out while an earlier message of its key was unsettled.
    pub(crate) disorder: Vec<String>,
    /// Answers that counted though somebody else held the message.
    pub(crate) zombies: Vec<String>,
    /// Came again though no fault happened to it.
    pub(crate) doubled: Vec<String>,
    /// Came from publishers that rolled back, or from nowhere.
    pub(crate) strange: Vec<String>,
    /// Dead letters that should not be, or are not though they should.
    pub(crate) dead: Vec<String>,
    /// Consumers that ended by themselves.
    pub(crate) gave_up: Vec<String>,
    /// How many deliveries there were of what had been delivered before, and was not given back by its holder.
    pub(crate) duplicates: usize,
    /// How many answers of superseded holders were refused.
    pub(crate) refused: usize,
}

impl Audit {
    /// Checks the history of a subscription of this shape, at whose end `dead` are the dead letters. A fault may bring again what was
    /// handed out up to a lease before it, or while it lasted.
    pub(crate) fn of(history: &History, dead: &BTreeSet<u64>, shape: Shape) -> Self {
        let mut audit = Self { gave_up: history.gave_up.clone(), ..Self::default() };
        audit.refused = history.handed.iter().filter(|handed| handed.is_stale()).count();
        for handed in history.strangers() {
            audit.strange.push(format!("{handed} was never published"));
        }
        let mut by_key: BTreeMap<&str, Vec<(u64, &Sent)>> = BTreeMap::new();
        for (n, sent) in &history.sent {
            audit.one(history, *n, sent, dead, shape.lease);
            if let Some(key) = sent.key.as_ref().filter(|_| shape.by_key) {
                by_key.entry(key).or_default().push((*n, sent));
            }
        }
        for sent in by_key.into_values() {
            audit.order(history, sent, dead);
        }
        audit
    }

    fn one(&mut self, history: &History, n: u64, sent: &Sent, dead: &BTreeSet<u64>, lease: Duration) {
        let deliveries = history.deliveries(sent);
        match sent.fate {
            Fate::Committed if !history.is_settled(sent) && !dead.contains(&n) => {
                self.lost.push(format!("{n} was committed and delivered {} times, to no effect", deliveries.len()));
            }
            Fate::RolledBack => {
                self.strange.extend(deliveries.iter().map(|handed| format!("{handed} was rolled back")));
            }
            Fate::Committed | Fate::InDoubt => {}
        }
        match (sent.poison, dead.contains(&n)) {
            (false, true) => self.dead.push(format!("{n} was given up, and nothing was wrong with it")),
            (true, false) if sent.fate == Fate::Committed => self.dead.push(format!("{n} was not given up")),
            _ => {}
        }
        for pair in deliveries.windows(2) {
            let [first, then] = pair else { continue };
            if first.was_given_back() {
                continue;
            }
            self.duplicates += 1;
            if !sent.poison && !is_explained(history, first, then, lease) {
                self.doubled.push(format!("{then} had been {first}, and nothing had happened"));
            }
        }
        for (place, first) in deliveries.iter().enumerate().filter(|(_, handed)| handed.is_accepted()) {
            let ok = first.ok_sent().unwrap_or(first.at);
            for then in &deliveries[place + 1..] {
                let newer = (then.attempt, then.before) > (first.attempt, first.before);
                if then.is_accepted() || newer && then.at < ok {
                    self.zombies.push(format!("{first} was accepted, and so or already {then}"));
                } else if first.answered.is_some_and(|(at, _)| at < then.at) && !then.is_stale() {
                    self.doubled.push(format!("{then} came after its acknowledgement was durable"));
                }
            }
        }
    }

    /// Checks the messages of one key. A message precedes another if it had been committed before that was published.
    fn order(&mut self, history: &History, mut sent: Vec<(u64, &Sent)>, dead: &BTreeSet<u64>) {
        let mut before: Vec<_> =
            sent.iter().filter(|(n, sent)| sent.fate == Fate::Committed && !dead.contains(n)).copied().collect();
        before.sort_by_key(|(_, sent)| sent.ended);
        sent.sort_by_key(|(_, sent)| sent.began);
        let mut before = before.into_iter().peekable();
        // Of those that precede: by when all had been answered with OK, and when the last of them was handed out for good.
        let (mut settled, mut handed_out) = ((0, 0), (0, 0));
        for (n, next) in sent {
            while let Some((earlier, sent)) = before.next_if(|(_, sent)| sent.ended < next.began) {
                let deliveries = history.deliveries(sent);
                let ok = deliveries.iter().filter_map(|handed| handed.ok_sent()).min().unwrap_or(Moment::MAX);
                let is_last = |handed: &&&Handed| handed.outcome().is_none() || handed.is_accepted();
                let last = deliveries.iter().rev().find(is_last).map_or(0, |handed| handed.at);
                settled = settled.max((ok, earlier));
                handed_out = handed_out.max((last, earlier));
            }
            let Some(first) = history.deliveries(next).into_iter().find(|handed| !handed.is_stale()) else { continue };
            if first.at < settled.0 {
                self.disorder.push(format!("{first} came before {} of its key was answered", settled.1));
            } else if first.at < handed_out.0 {
                self.disorder.push(format!("{first} came before {} of its key, which precedes {n}", handed_out.1));
            }
        }
    }

    /// All breaches, each with the name of its promise.
    pub(crate) fn breaches(&self) -> impl Iterator<Item = String> {
        let Self { lost, disorder, zombies, doubled, strange, dead, gave_up, .. } = self;
        let all = [
            ("lost", lost),
            ("order", disorder),
            ("zombie", zombies),
            ("doubled", doubled),
            ("from nowhere", strange),
            ("dead letters", dead),
            ("consumer ended", gave_up),
        ];
        all.into_iter().flat_map(|(name, found)| found.iter().map(move |what| format!("{name}: {what}")))
    }
}

/// Whether something happened while the first holder had it, or had claimed it in advance.
fn is_explained(history: &History, first: &Handed, then: &Handed, lease: Duration) -> bool {
    let since = first.at.saturating_sub(lease.as_micros() as Moment);
    // What was stale may have been handed out at any time after it was taken.
    let until = first.answered.filter(|_| !then.is_stale()).map_or(then.at, |(at, _)| at.min(then.at));
    let concerns = |process: &str| process == first.process || process == then.process;
    history.faults.iter().any(|fault| {
        let end = if fault.lasts { fault.until.unwrap_or(Moment::MAX) } else { fault.from };
        fault.from <= until && end >= since && fault.process.as_deref().is_none_or(concerns)
    })
}

impl fmt::Display for Handed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} delivered to {} (attempt {})", self.n, self.process, self.attempt)
    }
}
