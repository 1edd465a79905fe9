//! [`Audit`]: what was published, delivered and acknowledged, and whether that is what was promised.

use std::{
    collections::{HashMap, HashSet},
    sync::Mutex,
};

/// A history of numbered messages, in the order in which things happened to each.
#[derive(Default)]
pub(crate) struct Audit {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Published for certain, by number.
    published: HashSet<u64>,
    /// Published perhaps: the connection was lost before the server answered.
    in_doubt: HashSet<u64>,
    delivered: HashMap<u64, usize>,
    acked: HashSet<u64>,
    /// Answered with OK, whose answer was lost: it may come again, and need not.
    perhaps_acked: HashSet<u64>,
    faults: Vec<String>,
}

impl State {
    fn open(&self) -> impl Iterator<Item = &u64> {
        self.published.difference(&self.acked).filter(|number| !self.perhaps_acked.contains(number))
    }
}

impl Audit {
    pub(crate) fn published(&self, number: u64) {
        self.state.lock().unwrap().published.insert(number);
    }

    pub(crate) fn in_doubt(&self, number: u64) {
        self.state.lock().unwrap().in_doubt.insert(number);
    }

    /// Notes a delivery; one after an acknowledgement that was confirmed is a fault.
    pub(crate) fn delivered(&self, number: u64) {
        let mut state = self.state.lock().unwrap();
        *state.delivered.entry(number).or_default() += 1;
        if state.acked.contains(&number) {
            state.faults.push(format!("message {number} was delivered after its acknowledgement was durable"));
        }
    }

    pub(crate) fn acked(&self, number: u64) {
        self.state.lock().unwrap().acked.insert(number);
    }

    pub(crate) fn perhaps_acked(&self, number: u64) {
        self.state.lock().unwrap().perhaps_acked.insert(number);
    }

    /// How many messages that are published for certain are not acknowledged.
    pub(crate) fn open(&self) -> usize {
        self.state.lock().unwrap().open().count()
    }

    /// Checks that nothing was lost and that nothing came from nowhere; returns how many messages came more than once.
    pub(crate) fn check(&self) -> usize {
        let state = self.state.lock().unwrap();
        let lost: Vec<_> = state.open().collect();
        assert!(lost.is_empty(), "published and never acknowledged: {lost:?}");
        let known = |number: &&u64| !state.published.contains(number) && !state.in_doubt.contains(number);
        let strange: Vec<_> = state.delivered.keys().filter(known).collect();
        assert!(strange.is_empty(), "delivered and never published: {strange:?}");
        assert!(state.faults.is_empty(), "{:?}", state.faults);
        state.delivered.values().filter(|count| **count > 1).count()
    }
}
