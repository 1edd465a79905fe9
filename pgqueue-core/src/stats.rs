//! [`SubscriptionStats`]: how a subscription stands. [`HorizonHolder`]: who keeps its store from cleaning up.

use std::time::{Duration, SystemTime};

/// How a subscription stands: what waits, what is being handled, what was given up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive] // so that fields can be added
pub struct SubscriptionStats {
    /// The subscription's name.
    pub name: String,
    /// How many messages were never handed out: its lag in messages. A store may stop counting at 10,000, so that looking
    /// costs the same whatever the backlog.
    pub waiting: u64,
    /// Whether `waiting` is all there are; if not, there are more.
    pub waiting_is_exact: bool,
    /// How long ago the oldest message that is not done was published: its lag in time. `None` if all are done.
    pub oldest: Option<Duration>,
    /// How many messages are in the hands of consumers, those included that they took in advance, and those of consumers that
    /// died until a living one finds out.
    pub in_flight: u64,
    /// How many messages came back and wait to be handed out again.
    pub retrying: u64,
    /// How many dead letters there are.
    pub dead: u64,
    /// How many consumers live: have beaten within their lease.
    pub consumers: u64,
    /// How many of those waiting in [stable total order](crate::Order::StableTotal) do so for transactions that are still
    /// open, anywhere on the server: a [`HorizonHolder`] may say whose.
    pub held_back: u64,
    /// How many messages its topic's [retention](crate::Laggards::Cut) deleted before they were handed out, since it was inserted
    /// or moved. Its consumers are told [`Truncated`](crate::ErrorKind::Truncated) until it is moved.
    pub cut: u64,
}

impl SubscriptionStats {
    /// Says that nothing waits, for drivers to fill in.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), waiting_is_exact: true, ..Self::default() }
    }
}

/// What keeps a store from freeing the space of what the queue has deleted.
///
/// Claims do not slow down under it, but disk space does not come back before it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive] // so that fields can be added
pub struct HorizonHolder {
    /// What it is: a session, a prepared transaction, a replication slot.
    pub what: String,
    /// Which one it is.
    pub who: String,
    /// How many transactions have begun since.
    pub age: u64,
    /// Since when, if the store knows.
    pub since: Option<SystemTime>,
}

impl HorizonHolder {
    /// Names a holder, as drivers do that find one.
    pub fn new(what: impl Into<String>, who: impl Into<String>, age: u64, since: Option<SystemTime>) -> Self {
        Self { what: what.into(), who: who.into(), age, since }
    }
}
